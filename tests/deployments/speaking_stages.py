"""Stands in for the stages behind the whole ingress: real ones need processes of their own, and what is tested here is
what the ingress asks of them and makes of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.utterance import Utterance
from cosyvoice_core.voice.encoder import EncodedVoice
from cosyvoice_core.voice.quality import QualityReport
from deployments.messages import AudioHop, SourceTokens, UtteranceTask

RATE = 24000
PER_TOKEN = 960


def sound_of(utterance: Utterance) -> np.ndarray:
    """A second of sound for ten characters, at a level of its own for each text and seed."""
    source = utterance.inputs.source_tokens
    tokens = len(source) if source is not None else 25 * (1 + len(utterance.text) // 10)
    level = (hash((utterance.text, utterance.seed)) % 1000 + 1) / 2000
    return np.full(round(tokens * PER_TOKEN / utterance.speed), level, np.float32)


class _Stream:
    def __init__(self, items: AsyncIterator[Any]) -> None:
        self._items = items

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._items

    def cancel(self) -> None:
        """Nothing runs that is not asked for."""


class SpeakingVocoder:
    """A handle of a Vocoder that gives an utterance in hops of a second."""

    def __init__(self) -> None:
        self.tasks: list[UtteranceTask] = []
        self.made_s = 0.0

    def options(self, **_options: object) -> SpeakingVocoder:
        return self

    def remote(self, task: UtteranceTask) -> _Stream:
        self.tasks.append(task)
        return _Stream(self._hops(task))

    async def _hops(self, task: UtteranceTask) -> AsyncIterator[AudioHop]:
        sound = sound_of(task.utterance)
        for begin in range(0, len(sound), RATE):
            await asyncio.sleep(0)
            hop = sound[begin : begin + RATE]
            self.made_s += len(hop) / RATE
            yield AudioHop(hop, (1,) * 25, last=begin + RATE >= len(sound))


class HearingEncoder:
    """A handle of a VoiceEncoder: a source of n bytes has a token for each, in pieces of 50."""

    def __init__(self) -> None:
        self.encoded: list[bytes] = []
        self.sources: list[int] = []
        self.break_after: list[int] = []
        self._method = ""

    def options(self, *, method_name: str, **_options: object) -> HearingEncoder:
        self._method = method_name
        return self

    def remote(self, audio: bytes, first: int = 0) -> Any:
        if self._method == "encode":
            return _Stream(self._encode(audio))
        self.sources.append(first)
        return _Stream(self._tokens(audio, first))

    async def _encode(self, audio: bytes) -> AsyncIterator[EncodedVoice]:
        self.encoded.append(audio)
        if audio == b"noise":
            raise InputError("prompt_audio", "not a known audio format", "WAV")
        prompt = VoicePrompt(np.ones(192, np.float32), np.ones(25, np.int32), np.zeros((50, 80), np.float32))
        yield EncodedVoice(prompt, QualityReport(1.0, -20.0, 0.0, 0.0, 40.0))

    async def _tokens(self, audio: bytes, first: int) -> AsyncIterator[SourceTokens]:
        if audio == b"noise":
            raise InputError("source_audio", "not a known audio format", "WAV")
        pieces = range(0, len(audio), 50)
        left = self.break_after.pop(0) if self.break_after else None
        for number, begin in enumerate(pieces):
            if number < first:
                continue
            if left == 0:
                return
            left = left if left is None else left - 1
            await asyncio.sleep(0)
            ids = np.frombuffer(audio[begin : begin + 50], np.uint8).astype(np.int32)
            yield SourceTokens(ids, last=number == len(pieces) - 1)
