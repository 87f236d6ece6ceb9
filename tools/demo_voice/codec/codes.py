"""The code book of speech tokens: which phone, how far into it, which occurrence, how high. Knows no networks.

A token is a function of the text but for timing and intonation, which is what makes it easy to predict. Occurrences of
a phone alternate between two sets of codes, and a phone that lasts moves from code to code, so that hardly any code
comes twice among ten: repetition-aware sampling forbids that.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tools.demo_voice.data.alignment import SILENCE, Segment, token_runs
from tools.demo_voice.data.corpus import Corpus, FloatArray

IntArray = npt.NDArray[np.int64]

TURNS = 2
LEVELS = 3
_SILENCE_POSITIONS = 12
_MOST_POSITIONS = 8
_ROWS_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class CodeBook:
    """phones: labels, silence first; positions: distinguished places within each; pitched: whether it has levels;
    bounds: semitones against the utterance's median between low, middle and high."""

    phones: tuple[str, ...]
    positions: tuple[int, ...]
    pitched: tuple[bool, ...]
    bounds: tuple[float, float]

    def __post_init__(self) -> None:
        if not self.phones or self.phones[0] != SILENCE or len(set(self.phones)) != len(self.phones):
            raise ValueError("phones must be different and begin with silence")
        if not len(self.phones) == len(self.positions) == len(self.pitched):
            raise ValueError("every phone needs its positions and whether it is pitched")
        if min(self.positions) < 1 or self.bounds[0] > self.bounds[1]:
            raise ValueError(f"positions must be positive and bounds ordered, got {self.positions}, {self.bounds}")

    @classmethod
    def of(cls, corpus: Corpus) -> CodeBook:
        """Phones, places and pitch levels that the training utterances have."""
        lengths: dict[str, list[int]] = defaultdict(list)
        voiced: dict[str, list[float]] = defaultdict(list)
        heights: list[FloatArray] = []
        for number in corpus.numbers(held_out=False):
            utterance, pitch = corpus.utterances[number], corpus.pitch(number)
            segments, runs = token_runs(utterance.phones, utterance.tokens)
            height = relative_pitch(pitch)
            heights.append(height[pitch > 0])
            ends = np.cumsum(runs)
            for segment, run, end in zip(segments, runs, ends, strict=True):
                lengths[segment.label].append(int(run))
                voiced[segment.label].append(float((pitch[2 * (end - run) : 2 * end] > 0).mean()))
        phones = (SILENCE, *sorted(set(lengths) - {SILENCE}))
        positions = [
            min(_MOST_POSITIONS, int(np.ceil(np.quantile(lengths[phone], 0.98)))) if phone != SILENCE else 0
            for phone in phones
        ]
        positions[0] = _SILENCE_POSITIONS
        pitched = (False, *(float(np.mean(voiced[phone])) > 0.5 for phone in phones[1:]))
        low, high = np.quantile(np.concatenate(heights), [1 / 3, 2 / 3])
        return cls(phones, tuple(positions), pitched, (float(low), float(high)))

    @property
    def offsets(self) -> tuple[int, ...]:
        """First code of each phone."""
        sizes = [
            count * TURNS * (LEVELS if high else 1) for count, high in zip(self.positions, self.pitched, strict=True)
        ]
        return tuple(int(total) for total in np.cumsum([0, *sizes[:-1]]))

    @property
    def size(self) -> int:
        """Number of codes."""
        return self.offsets[-1] + self.positions[-1] * TURNS * (LEVELS if self.pitched[-1] else 1)

    @property
    def rows(self) -> int:
        """Size of the models' tables: a few more rows than codes, for a round number."""
        return -(-self.size // _ROWS_MULTIPLE) * _ROWS_MULTIPLE

    @property
    def cycles(self) -> tuple[int, ...]:
        """How many last places a phone that lasts longer goes round through: all of silence, half of the others."""
        return (self.positions[0], *(max(1, count // 2) for count in self.positions[1:]))

    def codes(self, phone: IntArray, start: npt.NDArray[np.bool_], level: IntArray) -> IntArray:
        """Codes (T,) of tokens with phone and level numbers (T,); start: where a phone begins, the first one always."""
        time = np.arange(len(phone))
        first = np.maximum.accumulate(np.where(start, time, 0))
        place, count = time - first, np.array(self.positions)[phone]
        cycle = np.array(self.cycles)[phone]
        place = np.where(place < count, place, count - cycle + (place - count) % cycle)
        begun = np.cumsum((phone[:, None] == np.arange(len(self.phones))) & start[:, None], axis=0)
        turn = (begun[time, phone] - 1) % TURNS
        pitched = np.array(self.pitched)[phone]
        inner = (turn * count + place) * np.where(pitched, LEVELS, 1) + np.where(pitched, level, 0)
        return np.asarray(np.array(self.offsets)[phone] + inner, np.int64)

    def aligned(self, segments: Sequence[Segment], tokens: int, pitch: FloatArray) -> Labels:
        """What the teacher's alignment says each token is. Raises KeyError for a phone that is not in the book."""
        kept, runs = token_runs(segments, tokens)
        index = {label: number for number, label in enumerate(self.phones)}
        phone = np.repeat([index[segment.label] for segment in kept], runs)
        start = np.zeros(tokens, bool)
        start[np.cumsum(runs)[:-1]] = True
        start[0] = True
        height = relative_pitch(pitch).reshape(tokens, 2)
        sounding = pitch.reshape(tokens, 2) > 0
        level = np.ones(tokens, np.int64)
        for end, run in zip(np.cumsum(runs), runs, strict=True):
            heard = height[end - run : end][sounding[end - run : end]]
            if len(heard):
                level[end - run : end] = np.searchsorted(self.bounds, np.median(heard))
        return Labels(phone.astype(np.int64), start, level)

    def shifted(self, codes: IntArray, after: IntArray) -> IntArray:
        """`codes` of an utterance as they follow those of another: occurrences go on alternating where they stopped."""
        phone, turn, size = self._parts(codes)
        phone_before, turn_before, _ = self._parts(after)
        first = np.full(len(self.phones), -1)
        # Of equal places the last one written stays.
        first[phone[::-1]] = turn[::-1]
        last = np.full(len(self.phones), -2)
        last[phone_before] = turn_before
        same = (first == last)[phone]
        return np.asarray(codes + np.where(same, np.where(turn == 0, size, -size), 0), np.int64)

    def phone_of(self, codes: IntArray) -> IntArray:
        """Phone number of each code."""
        return np.searchsorted(self.offsets, codes, side="right").astype(np.int64) - 1

    def _parts(self, codes: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Of each code: phone, turn and how many codes a turn of it has."""
        phone = self.phone_of(codes)
        size = np.array(self.positions)[phone] * np.where(np.array(self.pitched)[phone], LEVELS, 1)
        return phone, (codes - np.array(self.offsets)[phone]) // size, size

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CodeBook:
        """Raises FileNotFoundError when the stage `tokenizer` has not run."""
        values = json.loads(path.read_text(encoding="utf-8"))
        low, high = values["bounds"]
        return cls(tuple(values["phones"]), tuple(values["positions"]), tuple(values["pitched"]), (low, high))


@dataclass(frozen=True, slots=True)
class Labels:
    """Per token (T,): phone number, whether a phone begins, pitch level."""

    phone: IntArray
    start: npt.NDArray[np.bool_]
    level: IntArray


def relative_pitch(pitch: FloatArray) -> FloatArray:
    """Hz to semitones against the median of the voiced frames; 0 where unvoiced."""
    voiced = pitch > 0
    if not voiced.any():
        return np.zeros_like(pitch)
    reference = np.median(pitch[voiced])
    return np.where(voiced, 12 * np.log2(np.where(voiced, pitch, reference) / reference), 0.0).astype(np.float32)


def repeats(codes: IntArray, window: int = 10) -> float:
    """Share of tokens that came already among the last `window`."""
    return float(np.mean([code in codes[max(0, at - window) : at] for at, code in enumerate(codes)]))
