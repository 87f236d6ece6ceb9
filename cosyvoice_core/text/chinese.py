"""How a Chinese sentence is read: its numbers by grammar, guarded, and what the grammar gets wrong by own rules.

The grammar sees only short runs of letters, digits and the signs of numbers, never quotes, braces or controls:
those are what it was not written for, and its cost grows with length.
"""

from __future__ import annotations

import re

from cosyvoice_core.text.number_reader import ReadNumbers
from cosyvoice_core.text.script import Language

_DIGITS = "零一二三四五六七八九"
# On the telephone "one" is said yāo, to be told from "seven".
_DIALLED = "零幺二三四五六七八九"

_ITEM = re.compile(r"^\(?(\d{1,2})(?:[.)、．]\s*)(?=[^\W\d])")
_BLANKS = re.compile(r"(?<=[^\x00-\x7f]) +(?=\d)|(?<=\d) +(?=[^\x00-\x7f])")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)")
_DOTTED = re.compile(r"(?<![\d.])(?![12]\d{3}\.\d{1,2}\.\d{1,2}(?![\d.]))\d+(?:\.\d+){2,}(?![\d.])")
_PHONES = re.compile(
    r"(?<![\dA-Za-z])\+\d[\d -]{5,20}\d(?!\d)"
    r"|(?<![\d-])(?:0\d{2,3}-\d{7,8}|\d{3}-\d{3,4}-\d{4})(?![\d-])"
)
_LONG = re.compile(r"\d{20,}")
_PER_MILLE = re.compile(r"(\d+(?:\.\d+)?)‰")
_LETTER_HYPHEN = re.compile(r"(?<=[A-Za-z])-(?=\d)")
_RANGE = re.compile(r"(?<=\d)\s?[—~]\s?(?=\d)")
_POWER = re.compile(r"(?<=[\dA-Za-z])\^(\d+)")
_DIVIDED = re.compile(r"(?<=\d)\s?÷\s?(?=\d)")
_MILLILITRE = re.compile(r"(?<=\d)\s?mL(?![A-Za-z])")
_ROUND_THE_CLOCK = re.compile(r"(?<![\d/])24/7(?![\d/])")

# What the grammar is shown, and the longest stretch of it: runs past that are cut between two ideographs.
_RUN = re.compile(r"[0-9A-Za-z\u4e00-\u9fff.,:/%~+\-×÷=*°$¥€£²³ ]+")
_LONGEST = 80
_BETWEEN_IDEOGRAPHS = re.compile(r"(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])")

_SIGNS = (
    ("==", "等于"),
    ("²", "平方"),
    ("³", "立方"),
    ("%", "百分号"),
    ("&", "和"),
    ("=", "等于"),
    ("≈", "约等于"),
    ("≠", "不等于"),
    ("≤", "小于等于"),
    ("≥", "大于等于"),
    ("×", "乘"),
    ("÷", "除以"),
    ("±", "正负"),
    ("°C", "摄氏度"),
    ("°F", "华氏度"),
    ("°", "度"),
)
_PLUS = re.compile(r"(?<=\w)\+(?=\w)")
_DIGIT = re.compile(r"\d")


def read_chinese(sentence: str, read_numbers: ReadNumbers) -> str:
    """`sentence` in words: no digits remain, whatever the grammar does."""
    if _DIGIT.search(sentence):
        sentence = _prepare(_western_digits(sentence))
        sentence = _RUN.sub(lambda match: _read_run(match.group(), read_numbers), sentence)
        sentence = _DIGIT.sub(lambda match: _DIGITS[int(match.group())], sentence)
    for sign, word in _SIGNS:
        sentence = sentence.replace(sign, word)
    return _PLUS.sub("加", sentence)


def _prepare(text: str) -> str:
    text = _BLANKS.sub("", _ITEM.sub(r"\1，", text))
    text = _ROUND_THE_CLOCK.sub("七乘二十四", text)
    text = _PHONES.sub(_dial, text)
    text = _THOUSANDS.sub(lambda match: match.group().replace(",", ""), text)
    text = _DOTTED.sub(lambda match: "点".join(_small(part) for part in match.group().split(".")), text)
    text = _LONG.sub(lambda match: _spell(match.group(), _DIALLED), text)
    text = _PER_MILLE.sub(r"千分之\1", text)
    text = _LETTER_HYPHEN.sub(" ", text)
    text = _POWER.sub(r"的\1次方", text)
    text = _DIVIDED.sub("除以", text)
    text = _MILLILITRE.sub("ml", text)
    return _RANGE.sub("~", text)


def _western_digits(text: str) -> str:
    return "".join(str(int(letter)) if letter.isdecimal() else letter for letter in text)


def _dial(match: re.Match[str]) -> str:
    number = match.group()
    plus = "加" if number.startswith("+") else ""
    return plus + "，".join(_spell(group, _DIALLED) for group in re.findall(r"\d+", number))


def _spell(digits: str, names: str) -> str:
    return "".join(names[int(digit)] for digit in digits)


def _small(digits: str) -> str:
    """Parts of versions and addresses: below one hundred as a number, else digit by digit."""
    if len(digits) != 2 or digits[0] == "0":
        return _spell(digits, _DIGITS)
    tens, ones = int(digits[0]), int(digits[1])
    return (_DIGITS[tens] if tens > 1 else "") + "十" + (_DIGITS[ones] if ones else "")


def _read_run(run: str, read_numbers: ReadNumbers) -> str:
    if not _DIGIT.search(run):
        return run
    pieces: list[str] = []
    start = 0
    while start < len(run):
        end = min(start + _LONGEST, len(run))
        if end < len(run):
            cut = _BETWEEN_IDEOGRAPHS.search(run, end, end + _LONGEST)
            end = cut.start() if cut else end
        pieces.append(_read_piece(run[start:end], read_numbers))
        start = end
    return "".join(pieces)


def _read_piece(piece: str, read_numbers: ReadNumbers) -> str:
    """One piece by the grammar, its outer blanks kept."""
    core = piece.strip(" ")
    if not _DIGIT.search(core):
        return piece
    return piece.replace(core, read_numbers(core, Language.CHINESE), 1)
