"""Odd Unicode into plain characters, before any rule looks at a text. Knows no language.

After `clean` a text has no control, format, private-use or unassigned characters, no emoji decoration, one kind
of apostrophe, double quote, dash and ellipsis, and newlines only as "\\n".
"""

from __future__ import annotations

import html
import unicodedata

import regex

_NEWLINES = regex.compile(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_BLANKS = regex.compile(r"[\t\x1f\p{Zs}]")
# Emoji keycaps: digit, optional variation selector, enclosing cap.
_KEYCAP = regex.compile(r"\ufe0f?\u20e3")
# Joiners shape the letters of Persian and Indic words; anywhere else they are only glue of emoji.
_JOINER = regex.compile(r"(?<![\p{Arabic}\p{M}])[\u200c\u200d]|[\u200c\u200d](?![\p{Arabic}\p{L}])")
_INVISIBLE = regex.compile(
    r"[\p{Cc}\p{Cs}\p{Co}\p{Cn}--[\n]]|[\p{Cf}--[\u200c\u200d]]|[\ufe00-\ufe0f\U000e0100-\U000e01ef]", regex.V1
)
_SURROGATES = regex.compile(r"[\ud800-\udfff]")
_TOO_MANY_MARKS = regex.compile(r"(\p{M}{4})\p{M}+")

# Compatibility forms of ordinary letters, digits and signs. Full-width ！（），：；？ are the proper signs of
# Chinese and stay.
_FORMS = regex.compile(
    r"[\uff01-\uff5e--[！（），：；？]]|[\uff61-\uff9f]+|[\uffe0-\uffe6]|[\U0001d400-\U0001d7ff]"
    r"|[\ufb00-\ufdff\ufe10-\ufe19\ufe30-\ufe6f\ufe70-\ufefc]|[\u3300-\u33ff]|[\u2160-\u217f]"
    r"|[\u2100-\u214f--[™℠]]|[\u1d2c-\u1d6a\u2090-\u209c]",
    regex.V1,
)
_ENCLOSED = regex.compile(r"[\u2460-\u24ff\u2776-\u2793\u3200-\u32ff\U0001f100-\U0001f1e5\U0001f200-\U0001f2ff]")
_FRACTION = regex.compile(r"[\u00bc-\u00be\u2150-\u215e\u2189]")
_POWER = regex.compile(r"[\u2070\u00b9\u2074-\u2079]+")
_SUBSCRIPT = regex.compile(r"[\u2080-\u2089]+")

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛ʼ＇′`´", "'"),
        **dict.fromkeys("“”„‟«»″‹›〝〞〟＂", '"'),
        **dict.fromkeys("‐‑‒−⁃﹣", "-"),
        **dict.fromkeys("–—―⸺⸻─━", "—"),
        **dict.fromkeys("∕⁄", "/"),
        **dict.fromkeys("∼〜～", "~"),
        **dict.fromkeys("‼⁉⁈❗❕", "!"),
        **dict.fromkeys("⁇❓❔‽", "?"),
        "⋯": "…",
        "‥": "…",
    }
)
_ELLIPSIS = regex.compile(r"\.(?: ?\.){2,}|…+|。{3,}|・{3,}")
_LONG_DASH = regex.compile(r"-{2,}|—+")
_SPACES = regex.compile(r" {2,}")
# With its semicolon only: "&copy=" in an address is none.
_ENTITY = regex.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]{2,8});")
# What web pages and speech mark-up leave in a text; other things in angle brackets may be words.
_MARKUP = regex.compile(
    r"</?(?:a|b|blockquote|br|code|div|em|h[1-6]|hr|i|img|li|mark|ol|p|pre|small|span|sub|sup|table|td|th|tr|u|ul"
    r"|speak|break|prosody|say-as|voice|phoneme|emphasis)(?:\s+[\w:-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'))*\s*/?>",
    regex.IGNORECASE,
)
_RULE = regex.compile(r"(?m)^[ ]*([-=_*~#+.])(?:[ ]*\1){3,}[ ]*$")


def clean(text: str) -> str:
    """`text` in plain characters. Any string is accepted."""
    text = _MARKUP.sub(" ", _ENTITY.sub(lambda match: html.unescape(match.group()), text))
    plain = text if text.isascii() and text.isprintable() else _plain_characters(text)
    plain = _RULE.sub("", plain)
    plain = _LONG_DASH.sub("—", _ELLIPSIS.sub("…", plain))
    return str(_SPACES.sub(" ", plain))


def _plain_characters(text: str) -> str:
    text = join_surrogates(text)
    text = _BLANKS.sub(" ", _NEWLINES.sub("\n", text))
    text = _INVISIBLE.sub("", _KEYCAP.sub(" ", text))
    text = _JOINER.sub("", text)
    text = text.replace("№", "No. ")
    text = _FRACTION.sub(lambda match: f" {_plain(match)} ", text)
    text = _ENCLOSED.sub(lambda match: f" {_plain(match)} ", text)
    text = _POWER.sub(lambda match: f"^{_plain(match)}", text)
    text = _SUBSCRIPT.sub(_plain, text)
    text = _FORMS.sub(_plain, text)
    text = unicodedata.normalize("NFC", text).translate(_SIGNS)
    return str(_TOO_MANY_MARKS.sub(r"\1", text))


def join_surrogates(text: str) -> str:
    """`text` with surrogate pairs joined (JSON decoders may leave them) and lone surrogates dropped."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _plain(match: regex.Match[str]) -> str:
    return unicodedata.normalize("NFKC", match.group())
