"""Where sentences end: lazily, over texts of any size, in any script. Knows neither numbers nor limits.

Works on cleaned text, tags masked; `blocks` is the exception and takes the text as the user sent it.
"""

from __future__ import annotations

from collections.abc import Iterator

import regex

from cosyvoice_core.text.addresses import ADDRESS
from cosyvoice_core.text.tags import CLOSING, MASKS

# Characters normalised at a time: large enough to see its language, small enough to start speaking at once.
_BLOCK = 2000

# Places to cut a long text, best first; each finds the last of its kind.
_CUTS = tuple(
    regex.compile("(?r)" + pattern)
    for pattern in (
        r"\n[ \t]*\r?\n",
        r"[。！？]+[\"”’」』）]*",
        r"\p{Ll}{3}[.!?][\"')]*[ \n]+(?=\p{Lu})",
        r"\n",
        r"[,，、;；]|[\p{Zs}\t]",
        r"(?=\X)",
    )
)

#: Character class bodies: what ends a sentence in any script, and what may close behind it.
STOPS = r"\p{Sentence_Terminal}…།"
CLOSERS = rf"\"'」』）】》〉)\]}}{CLOSING}"
_STOP = regex.compile(rf"\n|[{STOPS}]+(?:[{CLOSERS}]+[{STOPS}]+)*[{CLOSERS}]*")
_AMBIGUOUS = frozenset(".!?…")
_EAST_ASIAN = r"\p{Han}\p{Hiragana}\p{Katakana}"
_STARTS_SENTENCE = regex.compile(rf"[{_EAST_ASIAN}{MASKS}\"“「『（《【(]|\p{{Lu}}")
_EAST_ASIAN_END = regex.compile(rf"[{_EAST_ASIAN}]")
_LOWER = regex.compile(r"[\p{Ll}]")
_UPPER = regex.compile(r"[\p{Lu}]")

# Words whose full stop never ends a sentence.
_SHORTENED = frozenset(
    {
        *("dr", "mr", "mrs", "ms", "prof", "st", "mt", "gen", "sen", "rep", "gov", "capt", "lt", "col", "sgt"),
        *("vs", "e.g", "i.e", "cf", "approx", "dept"),
    }
)
# Those of which that is true before a number.
_SHORTENED_BEFORE_NUMBER = frozenset(
    {
        *("no", "nos", "fig", "figs", "vol", "ch", "sec", "p", "pp", "rs"),
        *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
    }
)
_WORD_BEFORE = regex.compile(r"(?:\p{L}|(?<=\p{L})\.(?=\p{L}))+$")
_INITIALS = regex.compile(r"(?:\p{Lu}\.)*\p{Lu}$")
_WORDS_MEET = regex.compile(r"\p{Ll}{3}\.\p{Lu}\p{Ll}")
_ENUMERATION = regex.compile(r"\s*\(?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})$")

_LINE_END_OPEN = regex.compile(r"[,，、;；:：\-—]$")
_LINE_START_ITEM = regex.compile(r"(?:[-*+•‣◦▪·]|\(?\d{1,3}[.)])\s|#{1,6}\s")
# Shorter lines are titles, verse or items; longer ones were wrapped by an editor.
_SHORT_LINE = 50


def blocks(text: str) -> Iterator[str]:
    """`text` in stretches of at most `_BLOCK` characters, cut where a sentence ends if one does."""
    start = 0
    while start < len(text):
        end = start + _BLOCK
        if end < len(text):
            end = _last_cut(text, start + _BLOCK // 2, end)
        yield text[start:end]
        start = end


def _last_cut(text: str, start: int, end: int) -> int:
    for cut in _CUTS:
        found = cut.search(text, start, end)
        if found and found.end() > start:
            return int(found.end())
    return end


def sentences(block: str) -> list[str]:
    """Sentences of `block`, each with its ender if it has one, none empty."""
    block = _join_lines(block)
    addresses = [match.span() for match in ADDRESS.finditer(block)]
    found: list[str] = []
    start = 0
    for stop in _STOP.finditer(block):
        inside_address = any(first < stop.end() and stop.start() < last for first, last in addresses)
        if not inside_address and _ends_sentence(block, start, stop.start(), stop.end()):
            found.append(block[start : stop.end()])
            start = stop.end()
    found.append(block[start:])
    return [stripped for sentence in found if (stripped := sentence.strip())]


def _ends_sentence(text: str, sentence: int, start: int, end: int) -> bool:
    """Whether the stop `text[start:end]` of the sentence that begins at `sentence` is its end."""
    stop = text[start:end]
    if stop == "\n" or end == len(text):
        return True
    signs = frozenset(stop) & _AMBIGUOUS
    quoted = stop[-1] not in _AMBIGUOUS
    following = text[end : end + 64]
    rest = following.lstrip(" ")
    next_letter, separated = rest[:1], rest != following or not rest or rest[0] == "\n"
    if not signs:
        # 「…。」と goes on after the quotation in Japanese.
        return not (quoted and rest.startswith(("と", "って")))
    if quoted and _LOWER.match(next_letter):
        return False
    if signs == {"…"}:
        return separated and bool(_UPPER.match(next_letter))
    if signs & {"!", "?"}:
        return separated or bool(_STARTS_SENTENCE.match(next_letter))
    return _full_stop_ends(text, sentence, start, next_letter, separated)


def _full_stop_ends(text: str, sentence: int, start: int, next_letter: str, separated: bool) -> bool:
    if _EAST_ASIAN_END.match(text[start - 1 : start]):
        return separated or not next_letter.isdigit()
    if not separated and not _STARTS_SENTENCE.match(next_letter):
        return False
    if not separated and _UPPER.match(next_letter):
        # "Node.JS", "U.S": without a blank only whole words on both sides tell a sentence from a name.
        return bool(_WORDS_MEET.match(text, max(sentence, start - 3)))
    if _LOWER.match(next_letter) or _ENUMERATION.fullmatch(text, sentence, start):
        return False
    word = _WORD_BEFORE.search(text, max(sentence, start - 16), start)
    if word is None:
        return True
    shortened = word.group().lower()
    if shortened in _SHORTENED or (next_letter.isdecimal() and shortened in _SHORTENED_BEFORE_NUMBER):
        return False
    return word.group() == "I" or not _INITIALS.fullmatch(word.group())


def _join_lines(block: str) -> str:
    """Newlines that only wrap lines become blanks; those that part paragraphs, items or titles stay."""
    if "\n" not in block:
        return block
    lines = block.split("\n")
    joined = [lines[0]]
    previous = lines[0].strip()
    for line in lines[1:]:
        current = line.strip()
        joined += ("\n" if _parts(previous, current) else " ", line)
        previous = current
    return "".join(joined)


def _parts(previous: str, current: str) -> bool:
    if not previous or not current or _LINE_START_ITEM.match(current):
        return True
    if _LINE_END_OPEN.search(previous):
        return False
    if _EAST_ASIAN_END.match(previous[-1]) or _EAST_ASIAN_END.match(current[0]):
        return True
    return len(previous) < _SHORT_LINE and not _LOWER.match(current[0])
