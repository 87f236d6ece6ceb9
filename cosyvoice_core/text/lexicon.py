"""Pronunciation lexicon: words to replace by other spellings before a text is read. Knows no language rules."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field

from cosyvoice_core.errors import InputError

MAX_ENTRIES = 10_000
MAX_WORD = 64
MAX_REPLACEMENT = 512

# Letters and digits of scripts that put blanks between words (ASCII, Latin, Greek, Cyrillic): only there can a
# word be part of a longer one by mistake. Chinese, kana or Thai words are found anywhere.
_SPACED = re.compile(r"[0-9A-Za-z\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u052f\u1e00-\u1fff]")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Word -> replacement, applied longest word first, ignoring case; make one with `from_mapping`."""

    entries: Mapping[str, str] = field(default_factory=dict)
    # First two letters (of one-letter words: the letter) -> lengths of the words that begin so, longest first.
    _lengths: Mapping[str, tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        lengths: dict[str, set[int]] = {}
        for word in self.entries:
            lengths.setdefault(word[:2], set()).add(len(word))
        ordered = {prefix: tuple(sorted(found, reverse=True)) for prefix, found in lengths.items()}
        object.__setattr__(self, "_lengths", ordered)

    @classmethod
    def from_mapping(cls, words: Mapping[str, str]) -> Lexicon:
        """Lexicon of `words`. Raises InputError on field "lexicon" for too many, empty or over-long entries."""
        if len(words) > MAX_ENTRIES:
            raise InputError("lexicon", f"{len(words)} entries", f"at most {MAX_ENTRIES}")
        entries: dict[str, str] = {}
        for word, replacement in words.items():
            if not isinstance(word, str) or not isinstance(replacement, str):
                raise InputError("lexicon", f"entry {word!r} is not a pair of texts", "word -> replacement, both text")
            key = _lower(unicodedata.normalize("NFC", word.strip()))
            if not key or len(key) > MAX_WORD:
                raise InputError("lexicon", f"word {word[:80]!r} has {len(key)} characters", f"1 to {MAX_WORD}")
            if len(replacement) > MAX_REPLACEMENT:
                problem = f"replacement of {word!r} has {len(replacement)} characters"
                raise InputError("lexicon", problem, f"at most {MAX_REPLACEMENT}")
            entries[key] = replacement
        return cls(entries)

    def merged(self, other: Lexicon) -> Lexicon:
        """Both lexicons; where they disagree `other` wins (the request over the server)."""
        if not other.entries or not self.entries:
            return other if other.entries else self
        return Lexicon({**self.entries, **other.entries})

    def apply(self, text: str) -> str:
        """`text` with every known word replaced, in one pass (a replacement is not searched again)."""
        if not self.entries:
            return text
        lowered = _lower(text)
        parts: list[str] = []
        copied = position = 0
        while position < len(text):
            length = self._match(lowered, position)
            if length:
                parts += (text[copied:position], self.entries[lowered[position : position + length]])
                copied = position = position + length
            else:
                position += 1
        return "".join((*parts, text[copied:]))

    def _match(self, lowered: str, start: int) -> int:
        """Length of the longest word that stands at `start`, 0 for none."""
        if _inside_word(lowered, start):
            return 0
        for prefix in (lowered[start : start + 2], lowered[start]):
            for length in self._lengths.get(prefix, ()):
                end = start + length
                if lowered[start:end] in self.entries and not _inside_word(lowered, end):
                    return length
        return 0


def _lower(text: str) -> str:
    lowered = text.lower()
    if len(lowered) == len(text):
        return lowered
    # A few letters (İ) grow when lowered; positions must stay those of `text`, so they keep their case.
    return "".join(letter.lower() if len(letter.lower()) == 1 else letter for letter in text)


def _inside_word(text: str, cut: int) -> bool:
    """Whether `cut` would part two letters of one word."""
    if not 0 < cut < len(text):
        return False
    return bool(_SPACED.match(text[cut - 1]) and _SPACED.match(text[cut]))
