"""Audio chunks as the bytes of a response format; one header, then samples as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Send

from cosyvoice_core.audio.encode import to_pcm16, wav_header
from deployments.ingress.body import Format
from deployments.messages import SpeechChunk

MEDIA_TYPES: dict[Format, str] = {"wav": "audio/wav", "pcm": "audio/pcm"}


async def framed(
    first: SpeechChunk, rest: AsyncGenerator[SpeechChunk, None], response_format: Format, sample_rate: int
) -> AsyncGenerator[bytes, None]:
    """Bytes of a stream whose length nobody knows yet; closes `rest` when it is closed."""
    try:
        header = wav_header(sample_rate) if response_format == "wav" else b""
        yield header + to_pcm16(first.samples)
        async for chunk in rest:
            if len(chunk.samples):
                yield to_pcm16(chunk.samples)
    finally:
        await rest.aclose()


async def whole(
    first: SpeechChunk, rest: AsyncIterator[SpeechChunk], response_format: Format, sample_rate: int
) -> bytes:
    """The complete answer with its true length in the header."""
    parts = [to_pcm16(first.samples)]
    parts.extend([to_pcm16(chunk.samples) async for chunk in rest])
    data = b"".join(parts)
    return (wav_header(sample_rate, len(data) // 2) if response_format == "wav" else b"") + data


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
