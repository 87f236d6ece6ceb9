"""Sentences into segments of bounded length: long ones cut, short ones joined. Knows no reading rules.

Source: docs/model.md, "Text front end". Unlike the original, no segment is ever over the limit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import regex

from cosyvoice_core.text.punctuation import ender_of, is_speakable, tidy
from cosyvoice_core.text.script import Language
from cosyvoice_core.text.tags import unmask

_COUNTED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]")
"""A part of a Chinese or Japanese sentence may be in another script, of which a character may be many tokens."""

# Below this a single character with its marks, a tag and an ender might not fit.
_SMALLEST = 24


@dataclass(frozen=True, slots=True)
class SplitLimits:
    """Lengths of segments: Chinese and Japanese in characters, all else in text tokens.

    No segment is longer than max_*; sentences are joined only up to join_* (1: one sentence per segment).
    """

    max_tokens: int = 80
    max_characters: int = 80
    join_tokens: int = 80
    join_characters: int = 80

    def __post_init__(self) -> None:
        for name in ("max_tokens", "max_characters"):
            if getattr(self, name) < _SMALLEST:
                raise ValueError(f"{name} must be at least {_SMALLEST}, got {getattr(self, name)}")
        for name in ("join_tokens", "join_characters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words and pauses in one language, tags masked, and the ender's sign."""

    body: str
    sign: str
    language: Language

    @property
    def text(self) -> str:
        return self.body + ender_of(self.language, self.sign)


@dataclass(frozen=True, slots=True)
class _Run:
    """Sentences that form one segment so far; one with Chinese or Japanese in it is measured in characters."""

    text: str
    east_asian: bool
    last: Language

    @classmethod
    def of(cls, sentence: Sentence) -> _Run:
        return cls(sentence.text, sentence.language.east_asian, sentence.language)

    def then(self, sentence: Sentence) -> _Run:
        east_asian = sentence.language.east_asian
        blank = "" if east_asian or self.last.east_asian else " "
        return _Run(self.text + blank + sentence.text, self.east_asian or east_asian, sentence.language)


# Atoms that a part of a sentence is built of, coarse to fine: clauses, words, characters with what clings to them,
# and code points, because what clings together has no greatest length.
_SMALL_KANA = "ぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮー々"
_CHARACTER = rf"[เแโใไ]?\X[{_SMALL_KANA}]{{0,3}}"
_ATOMS = (
    regex.compile(r"[^,;:，、；：،؛]*[,;:，、；：،؛]+\s*|[^,;:，、；：،؛]+"),
    regex.compile(
        rf"[\p{{Latin}}\p{{Cyrillic}}\p{{Greek}}\p{{Arabic}}\p{{Hangul}}\p{{N}}\p{{M}}'\-]+\s*|{_CHARACTER}\s*"
    ),
    regex.compile(_CHARACTER),
    regex.compile(r"(?s)."),
)


class Splitter:
    """Cuts and joins under `limits`; count_tokens measures unmasked text."""

    def __init__(self, count_tokens: Callable[[str], int], limits: SplitLimits) -> None:
        self._count_tokens = count_tokens
        self._limits = limits

    def segments(self, sentences: Iterable[Sentence]) -> Iterator[str]:
        """Segments in order, as soon as the next sentence is known not to fit; tags unmasked."""
        current: _Run | None = None
        for sentence in sentences:
            for part in self._cut(sentence):
                joined = current.then(part) if current else _Run.of(part)
                if current and not self._joins(joined):
                    yield unmask(current.text)
                    joined = _Run.of(part)
                current = joined
        if current:
            yield unmask(current.text)

    def _joins(self, run: _Run) -> bool:
        limits = self._limits
        characters = min(limits.max_characters, limits.join_characters) if run.east_asian else None
        return self._within(run.text, characters, min(limits.max_tokens, limits.join_tokens))

    def _fits(self, sentence: Sentence) -> bool:
        characters = self._limits.max_characters if sentence.language.east_asian else None
        return self._within(sentence.text, characters, self._limits.max_tokens)

    def _within(self, text: str, characters: int | None, tokens: int) -> bool:
        """In characters where that is given and the text has any of the scripts that it is meant for."""
        plain = unmask(text)
        if characters is not None and _COUNTED.search(plain):
            return len(plain) <= characters
        return self._count_tokens(plain) <= tokens

    def _cut(self, sentence: Sentence) -> Iterator[Sentence]:
        """Parts of `sentence` that fit, each with an ender of its own; the last has the sentence's."""
        if self._fits(sentence):
            yield sentence
            return
        parts = [_part(sentence, part) for part in self._parts(sentence, sentence.body, 0)]
        spoken = [part for part in parts if is_speakable(part.body)]
        for index, part in enumerate(spoken):
            yield part if index == len(spoken) - 1 else replace(part, sign=".")

    def _parts(self, sentence: Sentence, body: str, level: int) -> list[str]:
        """`body` in stretches that fit, cut between atoms of `level` or, inside an atom too long, of the next."""
        atoms = _ATOMS[level].findall(body)
        stretches: list[str] = []
        start = 0
        while start < len(atoms):
            count = self._longest(sentence, atoms, start)
            if count:
                stretches.append("".join(atoms[start : start + count]))
            else:
                count = 1
                stretches += self._parts(sentence, atoms[start], level + 1)
            start += count
        return self._even(sentence, atoms, stretches)

    def _longest(self, sentence: Sentence, atoms: list[str], start: int) -> int:
        """How many atoms from `start` on fit together."""

        def overflows(count: int) -> bool:
            return not self._fits(_part(sentence, "".join(atoms[start : start + count])))

        # Doubling first, so that a long rest is never measured as a whole.
        bound = 1
        while start + bound < len(atoms) and not overflows(bound):
            bound *= 2
        bound = min(bound, len(atoms) - start)
        return bisect_left(range(1, bound + 1), True, key=overflows)

    def _even(self, sentence: Sentence, atoms: list[str], stretches: list[str]) -> list[str]:
        """As many stretches, of equal numbers of atoms, if they fit: no stump is left over at the end."""
        size = -(-len(atoms) // len(stretches))
        even = ["".join(atoms[start : start + size]) for start in range(0, len(atoms), size)]
        return even if all(self._fits(_part(sentence, part)) for part in even) else stretches


def _part(sentence: Sentence, body: str) -> Sentence:
    return replace(sentence, body=tidy(body, sentence.language))


def join(sentences: Iterable[Sentence]) -> str:
    """All sentences as one text of any length, tags unmasked."""
    texts: list[str] = []
    before: Language | None = None
    for sentence in sentences:
        if before and not before.east_asian and not sentence.language.east_asian:
            texts.append(" ")
        texts.append(sentence.text)
        before = sentence.language
    return unmask("".join(texts))
