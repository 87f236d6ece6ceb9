"""An answer as server-sent events in OpenAI's shape: `speech.audio.delta`, then `speech.audio.done` with usage."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator

from deployments.ingress.errors import answer_for
from deployments.ingress.framing import Framing
from deployments.messages import SpeechChunk

MEDIA_TYPE = "text/event-stream"


def event(kind: str, *, number: int | None = None, **fields: object) -> bytes:
    """number: the event's id, with which a client that was cut can go on."""
    named = "" if number is None else f"id: {number}\n"
    return f"{named}data: {json.dumps({'type': kind, **fields})}\n\n".encode()


def usage(text_tokens: int, audio_s: float, token_rate: float) -> dict[str, int]:
    """Text tokens in, speech tokens out."""
    speech_tokens = round(audio_s * token_rate)
    return {
        "input_tokens": text_tokens,
        "output_tokens": speech_tokens,
        "total_tokens": text_tokens + speech_tokens,
    }


async def speech_events(
    first: SpeechChunk,
    rest: AsyncGenerator[SpeechChunk, None],
    framing: Framing,
    *,
    source_rate: int,
    token_rate: float,
    text_tokens: int,
    heard: int | None = None,
) -> AsyncGenerator[bytes, None]:
    """Events of one answer; a failure in its midst is an `error` event, after which none follows. Closes `rest`.

    heard: samples before these, which a client that was cut has; each event's id is how many there are with it. None
    for a form whose middle cannot be told apart.
    """
    samples = heard or 0

    async def delta(chunk: SpeechChunk) -> bytes:
        nonlocal samples
        samples += len(chunk.samples)
        return _delta(await framing.push(chunk.samples), None if heard is None else samples)

    try:
        yield await delta(first)
        async for chunk in rest:
            if len(chunk.samples) and (data := await delta(chunk)):
                yield data
        if data := _delta(await framing.finish(), None):
            yield data
        yield event("speech.audio.done", usage=usage(text_tokens, samples / source_rate, token_rate))
    except Exception as error:  # noqa: BLE001 - the status is sent already, so the listener is told in an event
        yield event("error", error=answer_for(error).body())
    finally:
        await rest.aclose()


def _delta(data: bytes, number: int | None) -> bytes:
    return event("speech.audio.delta", number=number, audio=base64.b64encode(data).decode()) if data else b""
