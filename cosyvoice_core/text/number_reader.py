"""Number words by the finite-state grammars of wetext, kept from doing harm. Knows no sentences.

The grammars sit in the installed package and are only read: nothing is written, printed or fetched.
"""

from __future__ import annotations

import re
import threading
from typing import Protocol

from cosyvoice_core.text.script import Language

# Cost per character is high and grows with length: past `_WHOLE` characters a text is read in stretches.
_WHOLE = 4000
_STRETCH = 400
_BREAK = re.compile(r"[。！？；!?;\n]|[.,](?=\s)|，")
_DIGIT = re.compile(r"\d")


class ReadNumbers(Protocol):
    """Writes the numbers of a text as words of a language."""

    def __call__(self, text: str, language: Language) -> str: ...


class _Normaliser(Protocol):
    def normalize(self, text: str) -> str: ...


class GrammarReader:
    """Numbers of Chinese and English texts by wetext. Grammars are loaded at the first digit (0.2 s)."""

    def __init__(self) -> None:
        self._normalisers: dict[Language, _Normaliser] = {}
        self._lock = threading.Lock()

    def __call__(self, text: str, language: Language) -> str:
        """`text` read in `language` (CHINESE or ENGLISH); unchanged where it has no digit or the grammar fails."""
        if not _DIGIT.search(text):
            return text
        if len(text) <= _WHOLE:
            return self._read(text, language)
        return "".join(self._read_inside_blanks(stretch, language) for stretch in _stretches(text))

    def _read_inside_blanks(self, text: str, language: Language) -> str:
        """As `_read`, which strips, but with the outer blanks kept for what stands next to it."""
        core = text.strip()
        if not _DIGIT.search(core):
            return text
        return text.replace(core, self._read(core, language), 1)

    def _read(self, text: str, language: Language) -> str:
        # One at a time: the grammar objects are native code that promises nothing about threads.
        with self._lock:
            try:
                return self._normaliser(language).normalize(text)
            # A TypeError is how the native code refuses a lone surrogate.
            except (AssertionError, RuntimeError, TypeError, ValueError, LookupError):
                return text

    def _normaliser(self, language: Language) -> _Normaliser:
        if language not in self._normalisers:
            from wetext import Normalizer

            self._normalisers[language] = Normalizer(lang=language.value, operator="tn", remove_erhua=False)
        return self._normalisers[language]


def _stretches(text: str) -> list[str]:
    """`text` in pieces of about `_STRETCH` characters, cut behind punctuation where there is any."""
    stretches: list[str] = []
    start = 0
    while start < len(text):
        end = min(start + _STRETCH, len(text))
        if end < len(text):
            found = _BREAK.search(text, end, end + _STRETCH)
            end = found.end() if found else end
        stretches.append(text[start:end])
        start = end
    return stretches
