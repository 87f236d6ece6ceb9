"""The few signs a sentence keeps: pauses inside, one ender at its end. Knows no numbers.

Brackets and dashes become pauses, quotes and decoration go: the model knows commas from its training, the rest
it knows little of. Numbers and signs with a name were read before.
"""

from __future__ import annotations

import regex

from cosyvoice_core.text.script import Language
from cosyvoice_core.text.sentences import CLOSERS, STOPS
from cosyvoice_core.text.tags import CLOSING, MASKS, SOUNDS

_TAIL = regex.compile(rf"[{STOPS}{CLOSERS}\s]*\Z")
_STOP = regex.compile(rf"[{STOPS}]")
_SPEAKABLE = regex.compile(rf"[\p{{L}}\p{{N}}{SOUNDS}]")

_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\u30fb\u30fc"
_WORD = r"\p{L}\p{M}\p{N}"
_PAUSES = ",;:，、；：،؛"
# Signs that mean a number to a reader; kept where numbers are left to the model.
_NUMBER_SIGNS = "./%‰°$€£¥₽₩+"

# A stop between digits is part of a number that was left as it is.
_INNER_STOP = regex.compile(rf"(?<!\d)[{STOPS}]|[{STOPS}](?!\d)")
_LOOSE_NUMBER_SIGN = regex.compile(r"(?<!\d)[./]|[./](?!\d)")
_PAUSE_SIGN = regex.compile(rf"[()（）【】〔〕〖〗—]|(?<![{_WORD}{MASKS}])-+(?![{_WORD}])|(?<= )-+(?= )")
_LONE_APOSTROPHE = regex.compile(r"(?<![\p{L}\p{M}--[\p{Han}]])'|'(?![\p{L}--[\p{Han}]])", regex.V1)
_LONE_HYPHEN = regex.compile(rf"(?<![{_WORD}])-+|-+(?![{_WORD}])")
_PAUSE_RUN = regex.compile(rf"\s*([{_PAUSES}])[{_PAUSES}\s]*[{_PAUSES}]")
_BLANKS = regex.compile(r"\s+")

_SPACED_KEPT = rf"{_WORD}{MASKS} ,;:'\-،؛\u200c\u200d"
_SPACED_FOREIGN = regex.compile(rf"[^{_SPACED_KEPT}]")
_SPACED_FOREIGN_TO_NUMBERS = regex.compile(rf"[^{_SPACED_KEPT}{_NUMBER_SIGNS}]")
_WESTERN_PAUSES = str.maketrans("，、；：", ",,;:")
_TIGHT_COLON = regex.compile(r"[:;](?=\S)")
_BLANK_BEFORE_PAUSE = regex.compile(r"\s+(?=[,;:،؛])")
_PAUSE_WITHOUT_BLANK = regex.compile(rf"(?<=\p{{L}})([,،؛;])(?=[{_WORD}])")
_FIRST_WORD = regex.compile(r"[^\p{L}]*(\p{Ll})[\p{Ll}\p{M}']*(?![\p{Lu}\d])")

_CJK_KEPT = rf"{_WORD}{MASKS} ，、；：'\-・"
_CJK_FOREIGN = regex.compile(rf"[^{_CJK_KEPT}]")
_CJK_FOREIGN_TO_NUMBERS = regex.compile(rf"[^{_CJK_KEPT},:{_NUMBER_SIGNS}]")
_CJK_DROPPED = regex.compile(r"[\"「」『』《》〈〉~·•]")
_CJK_HYPHEN = regex.compile(rf"(?<=[{_CJK}])\s*-+\s*|\s*-+\s*(?=[{_CJK}])|(?<=\S)\s+-+\s+")
_CJK_SLASH = regex.compile(rf"(?<=[{_CJK}])\s*/\s*(?=[{_CJK}])")
_NAME_STOP = regex.compile(r"(?<=[A-Za-z])\.(?=[A-Za-z])")
_CHINESE_PAUSES = str.maketrans(",;:", "，；：")
_CHINESE_BLANK = regex.compile(rf"(?<=[{_CJK}{MASKS}{_PAUSES}])\s+|\s+(?=[{_CJK}{MASKS}{_PAUSES}])")
_JAPANESE_PAUSES = (
    (regex.compile(r"(?<!\d),|,(?!\d)"), "、"),
    (regex.compile(r"(?<!\d):|:(?!\d)"), "："),
    (regex.compile(r";"), "；"),
)
# Blanks between kana are the writer's own word bounds, which the model profits from.
_JAPANESE_BLANK = regex.compile(rf"(?<=[{MASKS}{_PAUSES}])\s+|\s+(?=[{MASKS}{_PAUSES}])")


def take_ender(sentence: str) -> tuple[str, str]:
    """`sentence` without its stop, and the sign that stop amounts to: "?", "!", another script's own, or "."."""
    tail = _TAIL.search(sentence)
    stops = _STOP.findall(tail.group()) if tail else []
    if not tail or not stops:
        return sentence, "."
    body = sentence[: tail.start()] + "".join(sign for sign in tail.group() if sign in CLOSING)
    western = {"？": "?", "！": "!", "。": ".", "．": ".", "…": "."}
    signs = [western.get(stop, stop) for stop in stops]
    for sign in ("?", "!"):
        if sign in signs:
            return body, sign
    return body, next((sign for sign in signs if sign != "."), ".")


def ender_of(language: Language, sign: str) -> str:
    """`sign` as `language` writes it."""
    if language.east_asian:
        return {"?": "？", "!": "！"}.get(sign, "。")
    if language is Language.ENGLISH:
        return sign if sign in "?!" else "."
    return sign


def is_speakable(text: str) -> bool:
    """Whether `text`, tags masked, holds anything to be heard: a letter, a digit, a laugh."""
    return bool(_SPEAKABLE.search(text))


def tidy(body: str, language: Language) -> str:
    """`body` of a sentence with words and pauses only, no ender, no pause at either end."""
    match language:
        case Language.CHINESE:
            tidied = _tidy_chinese(body)
        case Language.JAPANESE:
            tidied = _tidy_japanese(body)
        case _:
            tidied = _tidy_spaced(body, language)
    tidied = _PAUSE_RUN.sub(r"\1", tidied).strip(f" {_PAUSES}-'.")
    return _capitalised(tidied) if language is Language.ENGLISH else tidied


def _tidy_spaced(text: str, language: Language) -> str:
    english = language is Language.ENGLISH
    text = text.translate(_WESTERN_PAUSES)
    text = _INNER_STOP.sub(lambda match: " " if match.group() == "." else ", ", text)
    text = _PAUSE_SIGN.sub(", ", text)
    text = (_SPACED_FOREIGN if english else _SPACED_FOREIGN_TO_NUMBERS).sub(" ", text)
    text = _without_loose_signs(_TIGHT_COLON.sub(" ", text) if english else text)
    text = _BLANK_BEFORE_PAUSE.sub("", _BLANKS.sub(" ", text))
    return str(_PAUSE_WITHOUT_BLANK.sub(r"\1 ", text))


def _tidy_chinese(text: str) -> str:
    text = _NAME_STOP.sub("点", _CJK_DROPPED.sub("", text)).translate(_CHINESE_PAUSES)
    text = _CJK_FOREIGN.sub(" ", _pauses(text, "，"))
    return str(_CHINESE_BLANK.sub("", _BLANKS.sub(" ", _without_loose_signs(text))))


def _tidy_japanese(text: str) -> str:
    text = _CJK_DROPPED.sub("", text)
    for sign, pause in _JAPANESE_PAUSES:
        text = sign.sub(pause, text)
    text = _CJK_FOREIGN_TO_NUMBERS.sub(" ", _pauses(text, "、"))
    return str(_JAPANESE_BLANK.sub("", _BLANKS.sub(" ", _without_loose_signs(text))))


def _pauses(text: str, pause: str) -> str:
    """Chinese or Japanese text with inner stops, dashes and brackets as `pause`."""
    text = _INNER_STOP.sub(lambda match: " " if match.group() == "." else pause, text)
    text = _CJK_SLASH.sub("、", _CJK_HYPHEN.sub(pause, text))
    return str(_PAUSE_SIGN.sub(pause, text))


def _without_loose_signs(text: str) -> str:
    """Hyphens, apostrophes and number signs stay only inside words and numbers."""
    return str(_LONE_HYPHEN.sub(" ", _LONE_APOSTROPHE.sub(" ", _LOOSE_NUMBER_SIGN.sub(" ", text))))


def _capitalised(text: str) -> str:
    """A first word in small letters begins with a capital; "iPhone" stays."""
    found = _FIRST_WORD.match(text)
    if not found:
        return text
    first = found.start(1)
    return text[:first] + text[first].upper() + text[first + 1 :]
