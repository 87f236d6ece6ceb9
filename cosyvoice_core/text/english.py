"""How an English sentence is read: shortened words, addresses' digits, dates, quantities and signs, in order.

Own rules instead of a grammar: the available one loses words ("1,234"), misreads ("24/7") and tears names apart.
"""

from __future__ import annotations

import re

from cosyvoice_core.text.english_calendar import read_calendar
from cosyvoice_core.text.english_quantities import read_quantities

_SHORTENED = {
    "Ph.D": "PhD",
    "Dr": "Doctor",
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Miz",
    "Prof": "Professor",
    "Mt": "Mount",
    "Gen": "General",
    "Sen": "Senator",
    "Rep": "Representative",
    "Gov": "Governor",
    "Capt": "Captain",
    "Lt": "Lieutenant",
    "Col": "Colonel",
    "Sgt": "Sergeant",
    "Jr": "Junior",
    "Sr": "Senior",
    "vs": "versus",
    "etc": "et cetera",
    "e.g": "for example",
    "i.e": "that is",
    "approx": "approximately",
    "dept": "department",
    "est": "established",
    "Fig": "figure",
    "Figs": "figures",
    "Vol": "volume",
    "Ave": "Avenue",
    "Blvd": "Boulevard",
    "Inc": "Incorporated",
    "Ltd": "Limited",
    "Corp": "Corporation",
}
_SHORT = re.compile(
    r"\b(" + "|".join(re.escape(word) for word in sorted(_SHORTENED, key=len, reverse=True)) + r")\.(?!\w)",
    re.IGNORECASE,
)
_FULL = {short.lower(): full for short, full in _SHORTENED.items()}
_SAINT = re.compile(r"\bSt\.(?= [A-Z])")
_STREET = re.compile(r"(?<=[a-z] )St(?:\.|$)")
# At a sentence's end its stop is gone already, and most short forms could be words there ("one more rep").
_SHORT_AT_END = re.compile(r"\b(etc|Jr|Sr|Ave|Blvd|Inc|Ltd|Corp|Ph\.D)$")
_DOTTED = re.compile(r"\b(?:[A-Z]\.){2,}(?![a-z])|\b(?:[A-Z]\.)+[A-Z]\b")
_INITIAL = re.compile(r"\b([A-Z])\.(?= ?[A-Z])")
_INSIDE_NAME = re.compile(r"(?<=[A-Za-z])\.(?=[a-z0-9])")
_ITEM = re.compile(r"^\(?(\d{1,2})[.)]\s+(?=[^\W\d])")
_DIGITS = re.compile(r"\d")

_SIGNS = (
    (re.compile(r"\bC#"), "C sharp"),
    (re.compile(r"\bF#"), "F sharp"),
    (re.compile(r"(?<=\w)\+\+"), " plus plus"),
    (re.compile(r"(?<=\w)\+(?!\w)"), " plus"),
    (re.compile(r"\s?&\s?"), " and "),
    (re.compile(r"(?<=\w)@(?=\w)|@(?=\w)|(?<= )@(?= )"), " at "),
    (re.compile(r"(?<=\w)\s?%"), " percent"),
    (re.compile(r"\s=\s"), " equals "),
    (re.compile(r"w/o\b"), "without"),
    (re.compile(r"\bw/ "), "with "),
)


def read_english(sentence: str) -> str:
    """`sentence` in words: no digits and no shortened words remain."""
    sentence = _STREET.sub("Street", _SAINT.sub("Saint", sentence))
    sentence = _SHORT.sub(lambda match: _FULL[match[1].lower()], sentence)
    sentence = _SHORT_AT_END.sub(lambda match: _FULL[match[1].lower()], sentence)
    sentence = _ITEM.sub(r"\1, ", sentence)
    if _DIGITS.search(sentence) or "²" in sentence or "³" in sentence:
        sentence = read_quantities(read_calendar(_western_digits(sentence)))
    for pattern, word in _SIGNS:
        sentence = pattern.sub(word, sentence)
    sentence = _DOTTED.sub(lambda match: match.group().replace(".", ""), sentence)
    sentence = _INITIAL.sub(r"\1", sentence)
    return _INSIDE_NAME.sub(" dot ", sentence)


def _western_digits(text: str) -> str:
    if text.isascii():
        return text
    return "".join(str(int(letter)) if letter.isdecimal() else letter for letter in text)
