"""The `reference` profile: normalisation and splitting as the original does them, flaws included.

Kept for parity; differs only where the original raises. Source: docs/model.md, "Text front end".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import regex

from cosyvoice_core.text.number_reader import ReadNumbers
from cosyvoice_core.text.script import Language, reference_branch

if TYPE_CHECKING:
    import inflect

MAX_LENGTH = 80
MIN_LENGTH = 60
MERGE_LENGTH = 20

_CHINESE_ENDERS = frozenset("。？！；：、.?!;")
_ENGLISH_ENDERS = frozenset(".?!;:")
_QUOTES = frozenset('"”')
_UNSPEAKABLE = regex.compile(r"[\p{P}\p{S}]*")
_TRAILING_COMMAS = re.compile(r"[，,、]+\Z")
_BRACKETS = str.maketrans("", "", "（）【】`")


class ReferenceFrontEnd:
    """Texts as the original model's front end hands them to its tokenizer.

    count_tokens measures English texts; read_numbers is the grammar (the identity gives the original without
    its optional package).
    """

    def __init__(self, count_tokens: Callable[[str], int], read_numbers: ReadNumbers) -> None:
        self._count_tokens = count_tokens
        self._read_numbers = read_numbers
        self._spell = _DigitSpeller()

    def normalise(self, text: str) -> str:
        """`text` with numbers read and signs replaced, not split. Only blanks give ""."""
        if _is_off(text):
            return text
        text = text.strip()
        if reference_branch(text) is Language.CHINESE:
            return self._normalise_chinese(text)
        return self._spell_digits(self._read_numbers(text, Language.ENGLISH))

    def segments(self, text: str) -> list[str]:
        """Segments of `text` in order; none where the original fails on a text without any word."""
        if _is_off(text):
            return [text]
        if not text.strip():
            return []
        return self.split(self.normalise(text), reference_branch(text))

    def split(self, normalised: str, branch: Language) -> list[str]:
        """Segments of a normalised text: cut at every ender, then packed; those without a word are dropped."""
        if not normalised:
            return []
        chinese = branch is Language.CHINESE
        pieces = _pieces(normalised, _CHINESE_ENDERS if chinese else _ENGLISH_ENDERS, "。" if chinese else ".")
        packed = _pack(pieces, len if chinese else self._count_tokens)
        return [segment for segment in packed if not _UNSPEAKABLE.fullmatch(segment)]

    def _normalise_chinese(self, text: str) -> str:
        text = self._read_numbers(text, Language.CHINESE).replace("\n", "")
        text = _drop_blanks(text)
        text = text.replace("²", "平方").replace("³", "立方")
        text = text.replace(".", "。").replace(" - ", "，")
        text = text.translate(_BRACKETS).replace("——", " ")
        return _TRAILING_COMMAS.sub("。", text)

    def _spell_digits(self, text: str) -> str:
        """Every run of digits of any kind as inflect spells it; runs beyond its largest number word stay."""
        words: list[str] = []
        start = 0
        while start < len(text):
            end = start
            while end < len(text) and text[end].isdigit() == text[start].isdigit():
                end += 1
            run = text[start:end]
            words.append(self._spell(run) if run[0].isdigit() else run)
            start = end
        return "".join(words)


class _DigitSpeller:
    """Runs of digits by inflect, whose import takes long and whose engine keeps state while it works."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, digits: str) -> str:
        """`digits` in words; as they are beyond the largest number word."""
        import inflect

        with self._lock:
            try:
                return str(self._engine.number_to_words(digits))
            except (inflect.NumOutOfRangeError, ValueError, LookupError):
                return digits

    @cached_property
    def _engine(self) -> inflect.engine:
        import inflect

        return inflect.engine()


def _is_off(text: str) -> bool:
    """The original leaves empty texts, and any text with a control token, alone."""
    return text == "" or ("<|" in text and "|>" in text)


def _drop_blanks(text: str) -> str:
    """Blanks stay only between two ASCII characters that are no blanks themselves."""

    def stays(index: int) -> bool:
        neighbours = text[index - 1 : index], text[index + 1 : index + 2]
        return all(neighbour and neighbour.isascii() and neighbour != " " for neighbour in neighbours)

    return "".join(letter for index, letter in enumerate(text) if letter != " " or stays(index))


def _pieces(text: str, enders: frozenset[str], default: str) -> list[str]:
    """Texts up to and with each ender; a quote behind an ender goes to the piece before it."""
    if text[-1] not in enders:
        text += default
    pieces: list[str] = []
    start = 0
    for index, letter in enumerate(text):
        if letter not in enders:
            continue
        if index > start:
            pieces.append(text[start : index + 1])
        start = index + 1
        if text[start : start + 1] in _QUOTES:
            if pieces:
                pieces[-1] += text[start]
            start += 1
    return pieces


def _pack(pieces: list[str], measure: Callable[[str], int]) -> list[str]:
    """Pieces joined while short; a short rest goes to the segment before it."""
    segments: list[str] = []
    current = ""
    for piece in pieces:
        if measure(current + piece) > MAX_LENGTH and measure(current) > MIN_LENGTH:
            segments.append(current)
            current = ""
        current += piece
    if current and segments and measure(current) < MERGE_LENGTH:
        segments[-1] += current
    elif current:
        segments.append(current)
    return segments
