"""The speech door: `POST /v1/audio/speech`."""

from __future__ import annotations

import re
import uuid

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployments.ingress.authentication import caller_of
from deployments.ingress.body import PROMPT_AUDIO, SpeechBody, read_speech_body
from deployments.ingress.described import body_schema
from deployments.ingress.events import MEDIA_TYPE as EVENTS
from deployments.ingress.events import speech_events
from deployments.ingress.framing import MEDIA_TYPES, AudioResponse, Framing, framed, whole
from deployments.ingress.service import SpeechService
from deployments.messages import FirstAudio, seeded

REQUEST_ID = "x-request-id"
SEED = "x-seed"
_HARMLESS = re.compile(r"[A-Za-z0-9._:/+=@-]{1,64}")


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


def speech_routes(service: SpeechService) -> APIRouter:
    """Routes that speak a text."""
    router = APIRouter()

    @router.post(
        "/v1/audio/speech",
        summary="Speak a text",
        response_class=Response,
        responses={
            200: {"content": {kind: {} for kind in (*MEDIA_TYPES.values(), EVENTS)}, "description": "audio, mono"}
        },
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": body_schema(SpeechBody)},
                    "multipart/form-data": {"schema": _form_schema()},
                },
            }
        },
    )
    async def speech(request: Request) -> Response:
        body, call = await read_speech_body(request)
        call = seeded(call.by(caller_of(request)))
        request_id = request_id_of(request)
        form = body.form(service.sample_rate)
        headers = {REQUEST_ID: request_id, "x-sample-rate": str(form.sample_rate), SEED: str(call.seed)}
        framing = Framing(form, service.sample_rate, whole=not body.stream)
        chunks = service.speak(call, request_id, streamed=body.stream)
        try:
            # Nothing is answered before there is audio: a failure until then is an error, not a broken 200.
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
                source_rate=service.sample_rate,
                token_rate=service.token_rate,
                text_tokens=await service.text_tokens(body.input),
                heard=body.resume_from_sample if body.resumable else None,
            )
            return AudioResponse(events, EVENTS, {**headers, "cache-control": "no-cache"})
        return AudioResponse(framed(first, chunks, framing), MEDIA_TYPES[body.response_format], headers)

    return router


def _form_schema() -> dict[str, object]:
    schema = body_schema(SpeechBody)
    schema["properties"]["prompt_audio"] = {
        "type": "string",
        "format": "binary",
        "description": PROMPT_AUDIO,
    }
    return schema
