"""Stage `data`: texts, said by many voices, in shards. What is there is kept, so that it can be interrupted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tools.demo_voice.data.corpus import Corpus, Features, Utterance, shard_path, write_shard
from tools.demo_voice.data.espeak import Espeak
from tools.demo_voice.data.render import Manner, render
from tools.demo_voice.data.texts import make_texts
from tools.demo_voice.data.voices import TRAINING, Voice


@dataclass(frozen=True, slots=True)
class DataPlan:
    """sentences: to train on, each said once; held_out: for judging; voices: how many of the teachers speak."""

    sentences: int
    held_out: int
    shard: int = 200
    voices: int = len(TRAINING)

    def __post_init__(self) -> None:
        if min(self.sentences, self.held_out, self.shard) < 1:
            raise ValueError("sentences, held_out and shard must be at least 1")
        if not 1 <= self.voices <= len(TRAINING):
            raise ValueError(f"voices must be in 1..{len(TRAINING)}, got {self.voices}")


def make_corpus(folder: Path, plan: DataPlan, seed: int, language: str = "en") -> Corpus:
    """Write what is missing and open it. Raises ValueError when the folder was made by another plan."""
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder / "plan.json", {"seed": seed, "language": language, **_fields(plan)})
    texts = make_texts(plan.sentences, plan.held_out, seed, language)
    said = [*((text, True) for text in texts.held_out), *((text, False) for text in texts.training)]
    espeak: Espeak | None = None
    numbers = range(-(-len(said) // plan.shard))
    for number in tqdm(numbers, desc="data", unit="shard", disable=None):
        if shard_path(folder, number).is_file():
            continue
        espeak = espeak or Espeak()
        random = np.random.default_rng([seed, 1, number])
        part = said[number * plan.shard : (number + 1) * plan.shard]
        rendered = [
            _said(espeak, text, _drawn_voice(plan, random).speaking(language), random, held_out)
            for text, held_out in part
        ]
        write_shard(folder, number, [utterance for utterance, _ in rendered], [features for _, features in rendered])
    return Corpus(folder)


def _said(
    espeak: Espeak, text: str, voice: Voice, random: np.random.Generator, held_out: bool
) -> tuple[Utterance, Features]:
    return render(espeak, text, voice, Manner.drawn(voice, random), random, held_out=held_out)


def _drawn_voice(plan: DataPlan, random: np.random.Generator) -> Voice:
    return TRAINING[int(random.integers(plan.voices))]


def _fields(plan: DataPlan) -> dict[str, object]:
    return {"sentences": plan.sentences, "held_out": plan.held_out, "shard": plan.shard, "voices": plan.voices}


def _claim(path: Path, values: dict[str, object]) -> None:
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8"))) != values:
        raise ValueError(f"{path.parent} holds data of another plan: {found}, not {values}; name another folder")
    path.write_text(json.dumps(values), encoding="utf-8")
