"""Audio chunks as the bytes of a response format, while they are made or whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from starlette.responses import StreamingResponse
from starlette.types import Send

from cosyvoice_core.audio.compress import Compression, FloatArray, StreamEncoder
from cosyvoice_core.audio.encode import to_pcm16, wav_header
from cosyvoice_core.audio.rate import RateChange
from deployments.messages import SpeechChunk

Format = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[Format, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


@dataclass(frozen=True, slots=True)
class AudioForm:
    """What an answer's audio is: its format, its rate in Hz, and a factor of its loudness."""

    response_format: Format
    sample_rate: int
    volume: float = 1.0


class Framing:
    """One answer's samples to bytes, chunk by chunk."""

    def __init__(self, form: AudioForm, source_rate: int, *, whole: bool = False) -> None:
        """whole: all bytes come from `finish`, with the true length in the header.

        Raises ValueError for a rate that the format does not have.
        """
        self._form = form
        self._whole = whole
        self._rate = RateChange(source_rate, form.sample_rate)
        self._encoder: StreamEncoder | None = None
        if form.response_format not in ("wav", "pcm"):
            self._encoder = StreamEncoder(Compression(form.response_format), form.sample_rate, whole=whole)
        # Bare samples cost less than a thread would.
        self._in_thread = self._encoder is not None or form.sample_rate != source_rate
        self._begun = False
        self._kept: list[bytes] = []

    async def push(self, samples: FloatArray) -> bytes:
        """(N,) of full scale 1 to the bytes that are complete with it."""
        if self._in_thread:
            return await asyncio.to_thread(self._push, samples)
        return self._push(samples)

    async def finish(self) -> bytes:
        return await asyncio.to_thread(self._finish) if self._in_thread else self._finish()

    def _push(self, samples: FloatArray) -> bytes:
        if self._form.volume != 1.0:
            samples = samples * np.float32(self._form.volume)
        return self._encoded(self._rate.push(samples))

    def _finish(self) -> bytes:
        data = self._encoded(self._rate.finish())
        if self._encoder is not None:
            return data + self._encoder.finish()
        if not self._whole:
            return data
        sound = b"".join(self._kept)
        header = wav_header(self._form.sample_rate, len(sound) // 2) if self._form.response_format == "wav" else b""
        return header + sound

    def _encoded(self, samples: FloatArray) -> bytes:
        if self._encoder is not None:
            return self._encoder.encode(samples)
        data = to_pcm16(samples)
        if self._whole:
            self._kept.append(data)
            return b""
        if self._form.response_format == "wav" and not self._begun:
            data = wav_header(self._form.sample_rate) + data
        self._begun = True
        return data


async def framed(
    first: SpeechChunk, rest: AsyncGenerator[SpeechChunk, None], framing: Framing
) -> AsyncGenerator[bytes, None]:
    """Bytes of a stream whose length nobody knows yet; closes `rest` when it is closed."""
    try:
        yield await framing.push(first.samples)
        async for chunk in rest:
            if len(chunk.samples) and (data := await framing.push(chunk.samples)):
                yield data
        if data := await framing.finish():
            yield data
    finally:
        await rest.aclose()


async def whole(first: SpeechChunk, rest: AsyncIterator[SpeechChunk], framing: Framing) -> bytes:
    """The complete answer."""
    await framing.push(first.samples)
    async for chunk in rest:
        await framing.push(chunk.samples)
    return await framing.finish()


class AudioResponse(StreamingResponse):
    """A streaming answer that closes its source at once when the client leaves, not when garbage is collected."""

    def __init__(self, audio: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(audio, media_type=media_type, headers=headers)
        self._audio = audio

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            await self._audio.aclose()
