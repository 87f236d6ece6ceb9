"""The stages in order, each in a folder of its own, each with what the ones before it left. Knows no stage's inside."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cosyvoice_core.config import ModelConfig
from cosyvoice_core.text.tokenizer import Tokenizer
from tools.demo_voice.codec.codes import CodeBook
from tools.demo_voice.codec.train import BOOK, train_tokenizer
from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.data.make import make_corpus
from tools.demo_voice.flow.train import train_flow
from tools.demo_voice.judge.evaluate import evaluate
from tools.demo_voice.lm.train import train_lm
from tools.demo_voice.pack import pack
from tools.demo_voice.scale import Scale
from tools.demo_voice.speaker.train import train_speaker
from tools.demo_voice.text.train import FOLDER, text_rows, train_text
from tools.demo_voice.vocoder.train import train_vocoder

Figures = dict[str, float]


@dataclass(frozen=True)
class Run:
    """One run in `work`. Each method is a stage: it goes on where it was interrupted and returns its figures."""

    work: Path
    scale: Scale
    seed: int = 0
    language: str = "en"

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint"

    @cached_property
    def corpus(self) -> Corpus:
        return Corpus(self.work / "data")

    def book(self) -> CodeBook:
        return CodeBook.load(self.work / "tokenizer" / BOOK)

    def text_tokenizer(self) -> Tokenizer:
        return Tokenizer.from_directory(self.work / "text" / FOLDER)

    def model(self) -> ModelConfig:
        """Dimensions, once text tokenizer and code book are there."""
        return self.scale.model_with(text_rows(self.text_tokenizer()), self.book().rows)

    def data(self) -> Figures:
        corpus = make_corpus(self.work / "data", self.scale.data, self.seed, self.language)
        words = {word for each in corpus.utterances for word in each.text.lower().split()}
        hours = sum(each.tokens for each in corpus.utterances) / 25 / 3600
        return {"utterances": float(len(corpus)), "hours": hours, "different words": float(len(words))}

    def tokenizer(self) -> Figures:
        return train_tokenizer(
            self.work / "tokenizer", self.corpus, self.scale.tokenizer, self.scale.plans.tokenizer, self.seed
        )

    def speaker(self) -> Figures:
        return train_speaker(
            self.work / "speaker", self.corpus, self.scale.speaker, self.scale.plans.speaker, self.seed
        )

    def text(self) -> Figures:
        return train_text(self.work / "text", self.corpus, self.scale.text)

    def lm(self) -> Figures:
        return train_lm(
            self.work / "lm",
            self.corpus,
            self.text_tokenizer(),
            self.book(),
            self.model().lm,
            self.scale.plans.lm,
            self.seed,
        )

    def flow(self) -> Figures:
        return train_flow(
            self.work / "flow", self.corpus, self.model().flow, self.scale.plans.flow, self.seed, self.scale.windows
        )

    def vocoder(self) -> Figures:
        model = self.model()
        return train_vocoder(
            self.work / "vocoder",
            self.corpus,
            model.vocoder,
            self.scale.plans.vocoder,
            self.seed,
            (self.work / "flow", model.flow),
            self.scale.mix,
        )

    def pack(self) -> Figures:
        return pack(self.work, self.checkpoint, self.corpus, self.model(), self.book().size)

    def evaluate(self) -> Figures:
        training = json.loads((self.work / "figures.json").read_text(encoding="utf-8"))
        return evaluate(self.checkpoint, self.corpus, self.scale.judge, self.seed, training, self.scale.name)

    def stage(self, name: str) -> Figures:
        """Run one by name and keep its figures in `figures.json`."""
        work: Callable[[], Figures] = getattr(self, name)
        figures = work()
        path = self.work / "figures.json"
        kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps({**kept, name: figures}, indent=1), encoding="utf-8")
        return figures


STAGES = ("data", "tokenizer", "speaker", "text", "lm", "flow", "vocoder", "pack", "evaluate")
