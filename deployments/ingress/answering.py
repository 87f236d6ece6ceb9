"""From the chunks of an answer to its HTTP response: headers, then audio as it comes, whole, or as events."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncGenerator

from fastapi import Request
from fastapi.responses import Response

from deployments.ingress.events import MEDIA_TYPE as EVENTS
from deployments.ingress.events import InputTokens, speech_events
from deployments.ingress.framing import MEDIA_TYPES, AudioResponse, Framing, framed, whole
from deployments.ingress.options import AnswerOptions
from deployments.ingress.service import SpeechService
from deployments.ingress.timeline import Timeline
from deployments.messages import FirstAudio, SpeechChunk

REQUEST_ID = "x-request-id"
SEED = "x-seed"
_HARMLESS = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}")

AUDIO_ANSWER: dict[int | str, dict[str, object]] = {
    200: {"content": {kind: {} for kind in (*MEDIA_TYPES.values(), EVENTS)}, "description": "audio, mono"}
}
"""OpenAPI's description of what `answer` gives."""


def request_id_of(request: Request) -> str:
    """The caller's id if it is short and cannot be taken for anything else in a log, else a new one."""
    return harmless_id(request.headers.get(REQUEST_ID, ""))


def harmless_id(given: str) -> str:
    """`given` where it is an id as `request_id_of` takes them, else a new one."""
    return given if _HARMLESS.fullmatch(given) else uuid.uuid4().hex


def server_timing(first_audio: FirstAudio) -> str:
    """The account of a first audio as a header (W3C Server Timing; milliseconds)."""
    parts = [("total", first_audio.total_s), *first_audio.parts]
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts)


async def answer(
    service: SpeechService,
    body: AnswerOptions,
    chunks: AsyncGenerator[SpeechChunk, None],
    *,
    request_id: str,
    seed: int,
    input_tokens: InputTokens,
    lines: bool = False,
) -> Response:
    """The response to a call whose chunks these are, in the form that its body asks for; lines: of a script.

    Nothing is answered before there is audio: a failure until then is raised, and no broken 200.
    """
    form = body.form(service.sample_rate)
    headers = {REQUEST_ID: request_id, "x-sample-rate": str(form.sample_rate), SEED: str(seed)}
    framing = Framing(form, service.sample_rate, whole=not body.stream)
    try:
        first = await anext(chunks)
        if first.first_audio is not None:
            headers["server-timing"] = server_timing(first.first_audio)
        if not body.stream:
            audio = await whole(first, chunks, framing)
            return Response(audio, media_type=MEDIA_TYPES[body.response_format], headers=headers)
    except BaseException:
        await chunks.aclose()
        raise
    if body.stream_format == "sse":
        events = speech_events(
            first,
            chunks,
            framing,
            Timeline(body.timestamps, sample_rate=service.sample_rate, token_rate=service.token_rate, lines=lines),
            source_rate=service.sample_rate,
            token_rate=service.token_rate,
            input_tokens=input_tokens,
            heard=body.resume_from_sample if body.resumable else None,
        )
        return AudioResponse(events, EVENTS, {**headers, "cache-control": "no-cache"})
    return AudioResponse(framed(first, chunks, framing), MEDIA_TYPES[body.response_format], headers)
