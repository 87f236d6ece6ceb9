"""Bodies of the speech and conversion routes: JSON in OpenAI's shape, or a multipart form with audio as files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TypeVar

from fastapi import Request
from pydantic import AliasChoices, Field
from starlette.datastructures import UploadFile

from cosyvoice_core.errors import InputError
from deployments.ingress.described import body_schema
from deployments.ingress.options import AnswerOptions, Base64, SpeechOptions, VoiceOptions
from deployments.messages import Recording, ResumePoint, SpeakCall

_FILES = {
    "prompt_audio": "prompt_audio",
    "ref_audio": "prompt_audio",
    "source_audio": "source_audio",
    "audio": "source_audio",
}
"""Fields that are files in a form, under their names here."""
_OBJECTS = ("lexicon", "sampling")

AnyBody = TypeVar("AnyBody", bound=AnswerOptions)


class SpeechBody(SpeechOptions, AnswerOptions):
    """A speech request."""

    input: str = Field(description="the text to speak")

    def call(self) -> SpeakCall:
        """Raises InputError for a mode that speaks no text."""
        return replace(self.call_for(self.input), resume=ResumePoint(0, self.resume_from_sample))


SOURCE_AUDIO = "what is to be said: speech as WAV, FLAC, MP3, OGG or M4A, 0.5 s to what the service allows (5 minutes)"


class ConversionBody(VoiceOptions, AnswerOptions):
    """A recording to be spoken in another voice."""

    source_audio: Base64 = Field(
        validation_alias=AliasChoices("source_audio", "audio"), description=f"{SOURCE_AUDIO}, in base64"
    )

    def call(self) -> SpeakCall:
        return SpeakCall(
            text=Recording(self.source_audio),
            voice=self.voice,
            prompt_audio=self.prompt_audio,
            speed=self.speed,
            seed=self.seed,
            realtime=self.realtime,
            pause_s=0.0,
            resume=ResumePoint(0, self.resume_from_sample),
        )


async def read_body(request: Request, kind: type[AnyBody]) -> AnyBody:
    """Read either kind of body. Raises InputError or pydantic's ValidationError, which name the field.

    `Last-Event-ID`, which clients of events send when they were cut, asks for what follows that event.
    """
    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    fields = await _read_form(request, kind) if is_form else await read_json(request)
    return resumed_where_cut(kind.model_validate(fields), request)


def resumed_where_cut(body: AnyBody, request: Request) -> AnyBody:
    """The body for what a client of events, who was cut, has not heard."""
    last_event_id = request.headers.get("last-event-id")
    if last_event_id is not None and body.stream_format == "sse":
        return body.resumed(last_event_id)
    return body


async def read_json(request: Request) -> object:
    """What a JSON body holds. Raises InputError."""
    try:
        return json.loads(await request.body())
    # A number of too many digits is no JSONDecodeError, but a ValueError like those.
    except (ValueError, RecursionError) as error:
        raise InputError("body", f"not valid JSON ({error})", "a JSON object or a multipart form") from None


async def _read_form(request: Request, kind: type[AnswerOptions]) -> dict[str, object]:
    fields: dict[str, object] = {}
    files = {name: own for name, own in _FILES.items() if own in kind.model_fields}
    async with request.form(max_files=len(set(files.values())), max_fields=32) as form:
        for given, value in form.multi_items():
            name = files.get(given, given)
            if name in fields:
                raise InputError(given, "the field is given twice", "each field once")
            if isinstance(value, UploadFile):
                if given not in files:
                    raise InputError(given, "this field takes no file", "a file only as " + " or ".join(files))
                fields[name] = await value.read()
            elif given in files:
                raise InputError(given, "this field takes a file", "audio as an upload")
            elif name in _OBJECTS:
                fields[name] = _json_field(name, value)
            else:
                fields[name] = value
    return fields


def _json_field(name: str, value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InputError(name, f"not valid JSON ({error})", "a JSON object") from None


def request_body(kind: type[AnswerOptions], files: dict[str, str]) -> dict[str, object]:
    """The OpenAPI description of either kind of body; files: fields that are uploads in a form, and what they hold."""
    form = body_schema(kind)
    for name, description in files.items():
        form["properties"][name] = {"type": "string", "format": "binary", "description": description}
    return {
        "required": True,
        "content": {
            "application/json": {"schema": body_schema(kind)},
            "multipart/form-data": {"schema": form},
        },
    }
