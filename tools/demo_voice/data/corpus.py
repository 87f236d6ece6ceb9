"""The training data as files: shards of utterances with their features, written once and read in slices.

Every array of a shard is the utterances' own, end to end, so that the token counts alone say where one lies. What later
stages work out about utterances lies beside the shards under a name. Knows no teacher and no model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open
from safetensors.numpy import save_file

from tools.demo_voice.data.alignment import Segment

FloatArray = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]

PER_TOKEN = {"wave": 960, "log_mel": 4, "mel": 2, "pitch": 2}
"""Rows of each stored array per speech token: samples at 24 kHz, frames at 100/s and at 50/s."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """What is known of one utterance besides its arrays. held_out: only for judging."""

    text: str
    voice: str
    tokens: int
    phones: tuple[Segment, ...]
    words: tuple[Segment, ...]
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 1 or not self.phones:
            raise ValueError(f"an utterance has tokens and phones, got {self.tokens} and {len(self.phones)}")


@dataclass(frozen=True, slots=True)
class Features:
    """wave (960 n,) float32 at 24 kHz; log_mel (4 n, 128); mel (2 n, 80); pitch (2 n,) Hz, 0 where unvoiced."""

    wave: FloatArray
    log_mel: FloatArray
    mel: FloatArray
    pitch: FloatArray


def shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.safetensors"


def write_shard(folder: Path, number: int, utterances: Sequence[Utterance], features: Sequence[Features]) -> None:
    """Write a shard; it appears whole or not at all. Raises ValueError when an array is not as long as its tokens."""
    for utterance, arrays in zip(utterances, features, strict=True):
        for name, rate in PER_TOKEN.items():
            found = len(getattr(arrays, name))
            if found != rate * utterance.tokens:
                raise ValueError(f"{utterance.text!r}: {name} has {found} rows, expected {rate * utterance.tokens}")
    joined = {
        "wave": np.concatenate([(arrays.wave * 32767).round().astype(np.int16) for arrays in features]),
        "log_mel": np.concatenate([arrays.log_mel.astype(np.float16) for arrays in features]),
        "mel": np.concatenate([arrays.mel.astype(np.float16) for arrays in features]),
        "pitch": np.concatenate([arrays.pitch.astype(np.float32) for arrays in features]),
    }
    _save(shard_path(folder, number), joined, {"utterances": json.dumps([asdict(each) for each in utterances])})


class Corpus:
    """All shards of a folder, read only."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError when there are none: run the stage `data` first."""
        self.folder = folder
        self._places: list[tuple[int, int]] = []
        self.utterances: list[Utterance] = []
        self._firsts: list[int] = []
        self._open: dict[Path, Any] = {}
        self._shards = sorted(folder.glob("shard-*.safetensors"))
        if not self._shards:
            raise FileNotFoundError(f"{folder}: no shards; run the stage `data` first")
        for number, path in enumerate(self._shards):
            first = 0
            self._firsts.append(len(self.utterances))
            for entry in json.loads(self._file(path).metadata()["utterances"]):
                utterance = _utterance(entry)
                self._places.append((number, first))
                self.utterances.append(utterance)
                first += utterance.tokens

    def __len__(self) -> int:
        return len(self.utterances)

    def numbers(self, *, held_out: bool) -> list[int]:
        """Numbers of the utterances to train on, or of the others."""
        return [number for number, each in enumerate(self.utterances) if each.held_out is held_out]

    def by_voice(self) -> dict[str, list[int]]:
        """Voice -> numbers of its utterances to train on."""
        voices: dict[str, list[int]] = {}
        for number in self.numbers(held_out=False):
            voices.setdefault(self.utterances[number].voice, []).append(number)
        return voices

    def wave(self, number: int) -> FloatArray:
        """(960 n,) at 24 kHz."""
        return self._slice(number, "wave").astype(np.float32) / np.float32(32767)

    def log_mel(self, number: int) -> FloatArray:
        """(4 n, 128)."""
        return self._slice(number, "log_mel").astype(np.float32)

    def mel(self, number: int) -> FloatArray:
        """(2 n, 80)."""
        return self._slice(number, "mel").astype(np.float32)

    def pitch(self, number: int) -> FloatArray:
        """(2 n,) Hz."""
        return self._slice(number, "pitch")

    def derived(self, name: str, number: int) -> AnyArray:
        """What a stage has written under `name`: rows per token if it was an array per token, else one row.

        Raises FileNotFoundError when it has not.
        """
        shard, first = self._places[number]
        path = self._derived_path(name, shard)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: run the stage that makes {name!r} first")
        file = self._file(path)
        if file.metadata()["kind"] == "token":
            rows = file.get_slice(name)
            return np.asarray(rows[first : first + self.utterances[number].tokens])
        return np.asarray(file.get_slice(name)[number - self._firsts[shard]])

    def write_derived(self, name: str, values: Mapping[int, AnyArray], *, per_token: bool) -> None:
        """Keep an array for every utterance. Raises KeyError when one is missing."""
        for shard in range(len(self._shards)):
            bounds = [*self._firsts, len(self)][shard : shard + 2]
            rows = [values[number] for number in range(*bounds)]
            path = self._derived_path(name, shard)
            self._open.pop(path, None)
            _save(
                path,
                {name: np.concatenate(rows) if per_token else np.stack(rows)},
                {"kind": "token" if per_token else "utterance"},
            )

    def has_derived(self, name: str) -> bool:
        return all(self._derived_path(name, shard).is_file() for shard in range(len(self._shards)))

    def _derived_path(self, name: str, shard: int) -> Path:
        return self.folder / name / self._shards[shard].name

    def _slice(self, number: int, name: str) -> AnyArray:
        shard, first = self._places[number]
        rate = PER_TOKEN[name]
        rows = self._file(self._shards[shard]).get_slice(name)
        return np.asarray(rows[rate * first : rate * (first + self.utterances[number].tokens)])

    def _file(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = safe_open(str(path), framework="numpy")
        return self._open[path]


def _utterance(entry: dict[str, Any]) -> Utterance:
    def segments(name: str) -> Iterator[Segment]:
        return (Segment(**each) for each in entry[name])

    return Utterance(
        text=entry["text"],
        voice=entry["voice"],
        tokens=entry["tokens"],
        phones=tuple(segments("phones")),
        words=tuple(segments("words")),
        held_out=entry["held_out"],
    )


def _save(path: Path, arrays: dict[str, AnyArray], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial, metadata)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
