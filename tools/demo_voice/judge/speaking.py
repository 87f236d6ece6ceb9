"""The ways a checkpoint is made to speak for its evaluation: at once, streamed, and while the text is being written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from cosyvoice_core.hops import HopPlan
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.synthesis import Synthesizer
from cosyvoice_core.utterance import SpeechRequest, Utterance
from tools.demo_voice.data.corpus import FloatArray


class Way(StrEnum):
    """How text goes in and sound comes out."""

    ONE_SHOT = "one-shot"
    STREAMED = "streamed"
    BI_STREAMED = "bi-streamed"


@dataclass(frozen=True, slots=True)
class Said:
    """samples (N,) at 24 kHz; ended: by itself, not at the greatest length; seconds: until all, and until the first, of
    it was there."""

    samples: FloatArray
    ended: bool
    seconds: float
    first_seconds: float = 0.0


VoiceT = TypeVar("VoiceT")


class Speaking(Protocol[VoiceT]):
    """What can be judged. A voice is only handed back to what made it."""

    def voice(self, recording: Path, transcript: str) -> VoiceT: ...

    def say(self, text: str, voice: VoiceT, way: Way, seed: int) -> Said: ...


class Talker:
    """Speaks sentences with one checkpoint, on the processor."""

    def __init__(self, checkpoint: Path) -> None:
        """Raises CheckpointError when something in it is wrong."""
        self.synthesizer = Synthesizer.from_pretrained(checkpoint)
        self._engine = TorchEngine.from_directory(checkpoint, self.synthesizer.config.lm)
        self._finished = False

    def voice(self, recording: Path, transcript: str) -> VoicePrompt:
        """A voice from a recording, as a user gives it."""
        return self.synthesizer.encode_voice(recording, transcript).prompt

    def say(self, text: str, voice: VoicePrompt, way: Way, seed: int) -> Said:
        """One sentence."""
        request = SpeechRequest(text, voice, seed=seed)
        began = time.perf_counter()
        if way is Way.BI_STREAMED:
            pieces = list(self._bi_streamed(request))
            return Said(np.concatenate(pieces), self._finished, time.perf_counter() - began)
        counts: list[int] = []
        if way is Way.ONE_SHOT:
            speech = self.synthesizer.speak(request)
            samples, counts = speech.samples, [len(tokens) for tokens in speech.tokens]
        else:
            tokens: list[int] = []
            samples = np.concatenate(list(self.synthesizer.stream(request, on_token=tokens.append)))
            counts = [len(tokens)]
        return Said(samples, sum(counts) < self.most(text, voice), time.perf_counter() - began)

    def most(self, text: str, voice: VoicePrompt) -> int:
        """The greatest number of speech tokens that a text can become."""
        return sum(each.max_tokens for each in self.synthesizer.planner.utterances(SpeechRequest(text, voice)))

    def _bi_streamed(self, request: SpeechRequest) -> Iterator[FloatArray]:
        """The text arrives word by word, each once nothing more can be said without it."""
        utterance = self.synthesizer.planner.streamed_utterance(request, 0)
        yield from self.synthesizer.stream_tokens(utterance, self._written_tokens(request, utterance), HopPlan())

    def _written_tokens(self, request: SpeechRequest, utterance: Utterance) -> Iterator[int]:
        splitter = self.synthesizer.planner.streamed(request)
        words = [f"{word} " for word in request.text.split()]
        sequence = self._engine.add(utterance.stream_request())
        self._finished = False
        for portion in [*map(splitter.push, words), splitter.flush()]:
            for text in portion:
                if text.index != utterance.index:
                    raise ValueError(f"{request.text!r} is too long for one utterance")
                self._engine.extend(sequence, text.ids, text.last)
            while self._engine.ready:
                for event in self._engine.step():
                    yield from event.tokens
                    if event.error is not None:
                        raise event.error
                    self._finished = event.reason == "stop"
