"""The script door: `POST /v1/audio/scripts`, many lines in several voices as one answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AliasChoices, Field

from cosyvoice_core.errors import InputError
from deployments.ingress.answering import AUDIO_ANSWER, answer, request_id_of
from deployments.ingress.authentication import caller_of
from deployments.ingress.body import read_json, resumed_where_cut
from deployments.ingress.described import body_schema
from deployments.ingress.options import PROMPT_AUDIO, AnswerOptions, Base64, Body, StyleOptions, VoiceName, either
from deployments.ingress.service import SpeechService
from deployments.messages import ResumePoint, ScriptCall, SpeakCall, seeded

_NDJSON = "application/x-ndjson"


class ScriptVoice(Body):
    """A voice that lines can name."""

    prompt_audio: Base64 = Field(validation_alias=either("prompt_audio"), description=f"{PROMPT_AUDIO}, in base64")
    prompt_text: str = Field(
        default="", max_length=2000, validation_alias=either("prompt_text"), description="what is said in it"
    )


class ScriptLine(StyleOptions):
    """One line; what it leaves out is as the script says."""

    text: str = Field(validation_alias=AliasChoices("text", "input"), description="the text to speak")
    pause_s: float | None = Field(default=None, ge=0, le=60, description="silence after it")


class ScriptBody(AnswerOptions):
    """Lines that are spoken one after another into one answer."""

    lines: list[ScriptLine] = Field(min_length=1)
    voice: VoiceName | None = Field(default=None, description="of lines that name none")
    voices: dict[str, ScriptVoice] = Field(
        default_factory=dict, description="voices that lines can name, beside the saved ones"
    )
    pause_s: float = Field(default=0.0, ge=0, le=60, description="silence after lines that do not say")
    lexicon: dict[str, str] = Field(default_factory=dict, description="word -> replacement, in all lines")
    realtime: bool = Field(default=False, description="true: somebody listens while it is made")

    def call(self) -> ScriptCall:
        """Raises InputError that names the line, counted from 0."""
        return ScriptCall(
            lines=tuple(self._line(number, line) for number, line in enumerate(self.lines)),
            pauses_s=tuple(self.pause_s if line.pause_s is None else line.pause_s for line in self.lines),
            seed=self.seed,
            realtime=self.realtime,
            resume=ResumePoint(0, self.resume_from_sample),
        )

    def _line(self, number: int, line: ScriptLine) -> SpeakCall:
        try:
            call = line.call_for(line.text)
        except InputError as error:
            raise InputError(f"lines.{number}.{error.field}", error.problem, error.allowed) from None
        if self.lexicon:
            call = replace(call, lexicon={**self.lexicon, **call.lexicon})
        name = self.voice if call.voice is None and call.prompt_audio is None else call.voice
        prompt = self.voices.get(name) if name is not None and call.prompt_audio is None else None
        if prompt is not None:
            return replace(call, voice=None, prompt_audio=prompt.prompt_audio, prompt_text=prompt.prompt_text)
        return replace(call, voice=name)


def script_routes(service: SpeechService) -> APIRouter:
    """Routes that speak a script."""
    router = APIRouter()

    @router.post(
        "/v1/audio/scripts",
        summary="Speak many lines, in several voices, into one answer",
        response_class=Response,
        responses=AUDIO_ANSWER,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {"schema": body_schema(ScriptBody)},
                    _NDJSON: {
                        "schema": {
                            "type": "string",
                            "description": "a line with the fields of the JSON body but `lines`, then one of each line",
                        }
                    },
                },
            }
        },
    )
    async def script(request: Request) -> Response:
        body = await _read(request)
        call = seeded((await asyncio.to_thread(body.call)).by(caller_of(request)))
        assert call.seed is not None
        request_id = request_id_of(request)

        async def text_tokens(_speech_tokens: int) -> int:
            counts = [await service.text_tokens(line.text) for line in body.lines]
            return sum(counts)

        chunks = service.read(call, request_id, streamed=body.stream)
        return await answer(
            service, body, chunks, request_id=request_id, seed=call.seed, input_tokens=text_tokens, lines=True
        )

    return router


async def _read(request: Request) -> ScriptBody:
    if request.headers.get("content-type", "").startswith(_NDJSON):
        fields: object = _from_lines(await request.body())
    else:
        fields = await read_json(request)
    # A long script would keep the event loop from everything else.
    return resumed_where_cut(await asyncio.to_thread(ScriptBody.model_validate, fields), request)


def _from_lines(content: bytes) -> dict[str, object]:
    objects = []
    for number, line in enumerate(content.splitlines()):
        if not line.strip():
            continue
        try:
            objects.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise InputError(
                "body", f"line {number} is not valid JSON ({error})", "a JSON object on each line"
            ) from None
    if not objects or not isinstance(objects[0], dict):
        raise InputError("body", "begins with no JSON object", "the script's own fields on the first line")
    return {**objects[0], "lines": objects[1:]}
