"""An answer as server-sent events in OpenAI's shape: `speech.audio.delta`, then `speech.audio.done` with usage.

Beside them, where asked for, those of its `Timeline`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

from deployments.ingress.errors import answer_for
from deployments.ingress.framing import Framing
from deployments.ingress.timeline import Moment, Timeline
from deployments.messages import SpeechChunk

MEDIA_TYPE = "text/event-stream"

InputTokens = Callable[[int], Awaitable[int]]
"""Speech tokens of an answer -> tokens of what it was made from."""


def event(kind: str, fields: Mapping[str, object], number: int | None = None) -> bytes:
    """number: the event's id, with which a client that was cut can go on."""
    named = "" if number is None else f"id: {number}\n"
    return f"{named}data: {json.dumps({'type': kind, **fields})}\n\n".encode()


def usage(input_tokens: int, speech_tokens: int) -> dict[str, int]:
    """Tokens in, speech tokens out."""
    return {
        "input_tokens": input_tokens,
        "output_tokens": speech_tokens,
        "total_tokens": input_tokens + speech_tokens,
    }


async def speech_events(
    first: SpeechChunk,
    rest: AsyncGenerator[SpeechChunk, None],
    framing: Framing,
    timeline: Timeline,
    *,
    source_rate: int,
    token_rate: float,
    input_tokens: InputTokens,
    heard: int | None = None,
) -> AsyncGenerator[bytes, None]:
    """Events of one answer; a failure in its midst is an `error` event, after which none follows. Closes `rest`.

    heard: samples before these, which a client that was cut has; each event's id is how many there are with it. None
    for a form whose middle cannot be told apart.
    """
    samples = heard or 0

    async def events_of(chunk: SpeechChunk) -> bytes:
        nonlocal samples
        before = _events(timeline.before(chunk, samples))
        samples += len(chunk.samples)
        data = _delta(await framing.push(chunk.samples), None if heard is None else samples)
        return before + data + _events(timeline.after(samples))

    try:
        yield await events_of(first)
        async for chunk in rest:
            if len(chunk.samples) and (data := await events_of(chunk)):
                yield data
        if data := _delta(await framing.finish(), None) + _events(timeline.end(samples)):
            yield data
        speech_tokens = round(samples / source_rate * token_rate)
        yield event("speech.audio.done", {"usage": usage(await input_tokens(speech_tokens), speech_tokens)})
    except Exception as error:  # noqa: BLE001 - the status is sent already, so the listener is told in an event
        yield event("error", {"error": answer_for(error).body()})
    finally:
        await rest.aclose()


def _events(moments: Iterable[Moment]) -> bytes:
    return b"".join(event(moment.kind, moment.fields) for moment in moments)


def _delta(data: bytes, number: int | None) -> bytes:
    return event("speech.audio.delta", {"audio": base64.b64encode(data).decode()}, number) if data else b""
