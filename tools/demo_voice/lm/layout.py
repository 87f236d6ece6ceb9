"""The sequences the language model is trained on, laid out as `cosyvoice_core.lm` lays them out when it speaks.

Both plans are kept to by tests. Knows ids, not texts or sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cosyvoice_core.lm.vocabulary import SpeechVocabulary

IGNORED = -100
"""Label of a position from which nothing is predicted."""


@dataclass(frozen=True, slots=True)
class Example:
    """ids: merged; labels: what follows each of them, IGNORED where that is given."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.labels):
            raise ValueError(f"{len(self.ids)} ids with {len(self.labels)} labels")


@dataclass(frozen=True, slots=True)
class Blocks:
    """Text and speech tokens of a bi-stream block."""

    text: int = 5
    speech: int = 15


def uni(vocabulary: SpeechVocabulary, text: Sequence[int], speech: Sequence[int], prompt: int = 0) -> Example:
    """`[sos] text [task] speech`, eos behind it; the first `prompt` tokens of the speech are given, not predicted."""
    ids = [vocabulary.sos, *vocabulary.text(text), vocabulary.task, *vocabulary.speech(speech)]
    return _example(ids, [*speech, vocabulary.eos], prompt, before=len(text) + 1)


def bi(
    vocabulary: SpeechVocabulary,
    text: Sequence[int],
    speech: Sequence[int],
    prompt: int = 0,
    blocks: Blocks | None = None,
) -> Example:
    """Blocks of text and speech with fill predicted after each, then what is left of the text, task, and the rest.

    Raises ValueError when the speech is too short to fill a block for every whole block of text.
    """
    blocks = blocks or Blocks()
    whole = len(text) // blocks.text
    if len(speech) < whole * blocks.speech:
        raise ValueError(f"{len(text)} text tokens need {whole * blocks.speech} speech tokens, there are {len(speech)}")
    ids, labels = [vocabulary.sos], [IGNORED]
    wording, sound = vocabulary.text(text), vocabulary.speech(speech)
    for block in range(whole):
        first = block * blocks.speech
        part = sound[first : first + blocks.speech]
        ids += [*wording[block * blocks.text : (block + 1) * blocks.text], *part]
        goals = [goal if first + at >= prompt else IGNORED for at, goal in enumerate(part)]
        filled = vocabulary.fill if first + len(part) > prompt else IGNORED
        labels += [*[IGNORED] * (blocks.text - 1), *goals, filled]
    first = whole * blocks.speech
    rest = sound[first:]
    left = wording[whole * blocks.text :]
    last = _example([*left, vocabulary.task, *rest], [*rest, vocabulary.eos], max(prompt - first, 0), before=len(left))
    return Example((*ids, *last.ids), (*labels, *last.labels))


def fits_bi(text: int, speech: int, blocks: Blocks | None = None) -> bool:
    """Whether so many tokens can be laid out by `bi`."""
    blocks = blocks or Blocks()
    return text // blocks.text * blocks.speech <= speech


def noisy(
    example: Example, share: float, vocabulary: SpeechVocabulary, codes: int, random: np.random.Generator
) -> Example:
    """The same with a share of the speech it reads, not of what it predicts, replaced: what it will say has errors."""
    ids = np.array(example.ids)
    hit = (ids < vocabulary.speech_tokens) & (random.random(len(ids)) < share)
    ids[hit] = random.integers(codes, size=int(hit.sum()))
    return Example(tuple(ids.tolist()), example.labels)


def _example(ids: list[int], goals: Sequence[int], prompt: int, before: int) -> Example:
    """Goals follow the ids from place `before` on; the first `prompt` of them are given."""
    kept = [goal if at >= prompt else IGNORED for at, goal in enumerate(goals)]
    return Example(tuple(ids), (*[IGNORED] * before, *kept))
