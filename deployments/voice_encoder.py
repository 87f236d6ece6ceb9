"""VoiceEncoder: prompt audio to what the model keeps of a voice, once per distinct audio.

Its answers come as streams of one, for their signs of life while they are made (`deployments.pulse`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import numpy as np

from cosyvoice_core.audio.features import TOKENIZER_RATE
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.voice.encoder import SOURCE_LIMITS, EncodedVoice
from cosyvoice_core.voice.encoder import VoiceEncoder as VoiceEncoderModel
from deployments.args import AppArgs
from deployments.compute import ComputeThread, ListenerClock
from deployments.live_args import LiveArgs
from deployments.messages import SourceTokens, StageInfo
from deployments.pulse import pulsing
from deployments.stage import OpenCalls


class VoiceEncoder:
    """One replica of the voice front end.

    What it caches is final: features are a pure function of the audio bytes, which the key is a hash of; the
    transcript is no part of them and is added by the caller. Least recently used voices leave when the byte budget
    is exceeded. Requests for the same audio that arrive together share one computation.
    """

    def __init__(self, args: AppArgs) -> None:
        directory = resolve_model(args.model_source(), progress=False)
        source = replace(SOURCE_LIMITS, max_seconds=args.limits.max_source_s)
        self._model = VoiceEncoderModel.from_directory(
            directory, threads=args.voice_encoder.threads, source_limits=source
        )
        self._sources = OpenCalls()
        self._compute = ComputeThread("voice")
        self._live = LiveArgs("VoiceEncoder", args)
        self._budget = args.voice_cache_bytes
        self._known: OrderedDict[str, EncodedVoice] = OrderedDict()
        self._known_bytes = 0
        self._running: dict[str, asyncio.Task[EncodedVoice]] = {}

    @pulsing
    async def encode(self, audio: bytes) -> AsyncIterator[EncodedVoice]:
        """Features and quality of prompt audio in any supported container; raises InputError for what is unusable."""
        key = hashlib.sha256(audio).hexdigest()
        if key in self._known:
            self._known.move_to_end(key)
            yield self._known[key]
            return
        if key not in self._running:
            self._running[key] = asyncio.create_task(self._encode(key, audio))
        # A caller that leaves must not take the computation from the others who wait for it.
        yield await asyncio.shield(self._running[key])

    @pulsing
    async def source_tokens(self, audio: bytes, first: int = 0) -> AsyncIterator[SourceTokens]:
        """Speech tokens of audio whose words are to be spoken in another voice, from piece number `first` on.

        Pieces that are heard later wait for whoever has heard nothing. Raises InputError.
        """
        with self._sources:
            pieces = await self._compute.run(ListenerClock().due, partial(self._model.source, audio))
            lead_s = 0.0
            for number, piece in enumerate(pieces):
                if number >= first:
                    due = ListenerClock(lead_s).due
                    ids = await self._compute.run(due, partial(self._model.tokens, piece))
                    yield SourceTokens(ids, last=number == len(pieces) - 1)
                    lead_s += len(piece) / TOKENIZER_RATE

    async def _encode(self, key: str, audio: bytes) -> EncodedVoice:
        try:
            voice = await self._compute.run(ListenerClock().due, partial(self._model.encode, audio))
        finally:
            del self._running[key]
        self._known[key] = voice
        self._known_bytes += _nbytes(voice)
        self._shrink()
        return voice

    def _shrink(self) -> None:
        while self._known_bytes > self._budget and self._known:
            self._known_bytes -= _nbytes(self._known.popitem(last=False)[1])

    async def info(self) -> StageInfo:
        running, problem = len(self._running) + self._sources.count, self._live.problem
        return StageInfo("VoiceEncoder", "cpu", "float32", "onnxruntime", os.getpid(), running, config_problem=problem)

    async def reconfigure(self, user_config: object) -> None:
        """Called by Serve at start and when `user_config` changes."""
        self._live.take(user_config, self._apply)

    def _apply(self, args: AppArgs) -> None:
        self._budget = args.voice_cache_bytes
        self._shrink()


def _nbytes(voice: EncodedVoice) -> int:
    arrays: tuple[np.ndarray, ...] = (voice.prompt.mel, voice.prompt.speech_tokens, voice.prompt.speaker)
    return sum(array.nbytes for array in arrays)
