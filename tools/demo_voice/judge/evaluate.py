"""Stage `evaluate`: how well the checkpoint speaks sentences and imitates voices it has never heard, in figures.

Everything goes through the synthesizer that is the oracle of the service. Word errors are compared with those of the
teacher's own sound of the same sentences, by the same listener. Writes a model card, its figures and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cosyvoice_core.audio.encode import write_wav
from cosyvoice_core.inputs import VoicePrompt
from tools.demo_voice.data.corpus import Corpus, FloatArray
from tools.demo_voice.data.espeak import Espeak
from tools.demo_voice.data.render import Manner, render
from tools.demo_voice.data.statistics import distance, voice_statistics
from tools.demo_voice.data.voices import SAVED, UNSEEN, Voice
from tools.demo_voice.judge.card import model_card, record_of
from tools.demo_voice.judge.measures import clicks, loudness_db
from tools.demo_voice.judge.pictures import draw
from tools.demo_voice.judge.recogniser import Recogniser, word_errors, words_of
from tools.demo_voice.judge.speaking import Talker, Way
from tools.demo_voice.scale import JudgePlan

_PROMPT_TEXT = "The weather in the harbour was calm, and the friendly pilot smiled at the crowd."
_RATE = 24000


@dataclass(frozen=True, slots=True)
class Case:
    """A way to speak, with the voices that take turns."""

    name: str
    way: Way
    voices: tuple[Voice, ...]


CASES = (
    Case("one-shot", Way.ONE_SHOT, SAVED),
    Case("streamed", Way.STREAMED, SAVED),
    Case("bi-streamed", Way.BI_STREAMED, SAVED),
    Case("unseen voices", Way.ONE_SHOT, UNSEEN),
)


@dataclass(slots=True)
class Tally:
    """Sums over the sentences of a case."""

    words: int = 0
    errors: int = 0
    teacher_errors: int = 0
    count: int = 0
    ended: int = 0
    clicks: int = 0
    work_s: float = 0.0
    sound_s: float = 0.0
    nearest: int = 0
    ratios: list[float] = field(default_factory=list)
    loudness: list[float] = field(default_factory=list)

    def figures(self, name: str) -> dict[str, float]:
        return {
            f"{name}: word error rate": self.errors / self.words,
            f"{name}: word error rate of the teacher": self.teacher_errors / self.words,
            f"{name}: ends by itself": self.ended / self.count,
            f"{name}: length to the teacher's, mean": float(np.mean(self.ratios)),
            f"{name}: lengths within 15 % of it": float(np.mean(np.abs(np.array(self.ratios) - 1) <= 0.15)),
            f"{name}: clicks per minute": 60 * self.clicks / self.sound_s,
            f"{name}: spread of loudness, dB": float(np.std(self.loudness)),
            f"{name}: nearest to its own prompt": self.nearest / self.count,
            f"{name}: real-time factor": self.work_s / self.sound_s,
        }


def evaluate(
    checkpoint: Path, corpus: Corpus, plan: JudgePlan, seed: int, training: Mapping[str, object], scale: str
) -> dict[str, float]:
    """Speak, listen, measure, and write the model card into the checkpoint; returns its figures."""
    torch.set_num_threads(1)
    texts = [corpus.utterances[number].text for number in corpus.numbers(held_out=True)][: plan.sentences]
    teacher, talker = _Teacher(Espeak(), checkpoint.parent / "judged"), Talker(checkpoint)
    voices = {voice: teacher.prompt(talker, voice) for case in CASES for voice in case.voices}
    judge = _Judge(teacher, talker, voices, Recogniser())
    pictures = []
    figures: dict[str, float] = {}
    for case in CASES:
        tally = Tally()
        for at, text, said_seed in tqdm(list(_turns(texts, plan.seeds, seed)), desc=case.name, disable=None):
            voice = case.voices[at % len(case.voices)]
            ours, theirs = judge.hear(text, voice, case.way, said_seed, tally)
            if case.name == "one-shot" and said_seed == seed and at < plan.pictures:
                name = f"pictures/sentence-{at + 1}.png"
                draw(f"{text} ({voice.name})", theirs, ours, checkpoint / name)
                pictures.append((text, name))
        figures |= tally.figures(case.name)
    figures["megabytes"] = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()) / 1e6
    record = {"scale": scale, "sentences": len(texts), "seeds": plan.seeds, "training": training, "figures": figures}
    (checkpoint / "figures.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    card = model_card(record_of(record), pictures)
    (checkpoint / "README.md").write_text(card, encoding="utf-8")
    return figures


def _turns(texts: list[str], seeds: int, seed: int) -> Iterator[tuple[int, str, int]]:
    for offset in range(seeds):
        for at, text in enumerate(texts):
            yield at, text, seed + offset


class _Teacher:
    """Says sentences, and the prompts of all voices."""

    def __init__(self, espeak: Espeak, folder: Path) -> None:
        self._espeak, self._folder = espeak, folder
        self._said: dict[tuple[str, Voice], FloatArray] = {}
        self._found: dict[tuple[str, Voice], FloatArray] = {}

    def wave(self, text: str, voice: Voice) -> FloatArray:
        """(N,) at 24 kHz, said once and kept."""
        if (text, voice) not in self._said:
            rendered = render(self._espeak, text, voice, Manner.plain(voice), np.random.default_rng(0))
            self._said[text, voice] = rendered[1].wave
        return self._said[text, voice]

    def statistics(self, text: str, voice: Voice) -> FloatArray:
        """What a sentence is like in a voice, found once and kept."""
        if (text, voice) not in self._found:
            self._found[text, voice] = voice_statistics(self.wave(text, voice))
        return self._found[text, voice]

    def prompt(self, talker: Talker, voice: Voice) -> VoicePrompt:
        """From a recording in a file, as a user would give it."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{voice.name}.wav"
        write_wav(path, [self.wave(_PROMPT_TEXT, voice)], _RATE)
        return talker.voice(path, _PROMPT_TEXT)


class _Judge:
    def __init__(
        self, teacher: _Teacher, talker: Talker, voices: Mapping[Voice, VoicePrompt], recogniser: Recogniser
    ) -> None:
        self._teacher, self._talker, self._voices, self._recogniser = teacher, talker, voices, recogniser
        self._teacher_errors: dict[tuple[str, Voice], int] = {}

    def hear(self, text: str, voice: Voice, way: Way, seed: int, tally: Tally) -> tuple[FloatArray, FloatArray]:
        """Our sound and the teacher's, after adding what is found to `tally`."""
        said = self._talker.say(text, self._voices[voice], way, seed)
        theirs = self._teacher.wave(text, voice)
        wanted = words_of(text)
        found = voice_statistics(said.samples)
        tally.words += len(wanted)
        tally.errors += word_errors(wanted, self._recogniser.words(said.samples, _RATE))
        tally.teacher_errors += self._errors_of_teacher(text, voice)
        tally.count += 1
        tally.ended += said.ended
        tally.clicks += clicks(said.samples)
        tally.work_s += said.seconds
        tally.sound_s += len(said.samples) / _RATE
        tally.ratios.append(len(said.samples) / len(theirs))
        tally.loudness.append(loudness_db(said.samples))
        # Of the same words in each voice: other words have other formants.
        tally.nearest += (
            min(self._voices, key=lambda each: distance(found, self._teacher.statistics(text, each))) == voice
        )
        return said.samples, theirs

    def _errors_of_teacher(self, text: str, voice: Voice) -> int:
        key = (text, voice)
        if key not in self._teacher_errors:
            heard = self._recogniser.words(self._teacher.wave(text, voice), _RATE)
            self._teacher_errors[key] = word_errors(words_of(text), heard)
        return self._teacher_errors[key]
