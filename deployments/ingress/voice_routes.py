"""The doors to saved voices: list, save, look at, remove, export. What a caller may do is the keeper's to say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from cosyvoice_core.errors import InputError
from cosyvoice_core.voice.saved import Flavour
from deployments.ingress.authentication import caller_of
from deployments.ingress.service import SpeechService
from deployments.voices.messages import NewVoice, VoiceDetails, VoiceInfo
from deployments.voices.names import ALLOWED
from deployments.voices.record import MAX_CONSENT_CHARS, MAX_TRANSCRIPT_CHARS

_PATH = "/v1/audio/voices"
_AUDIO = ("audio", "audio_sample", "prompt_audio", "ref_audio")
_RECORDING = "0.5 to 30 s of speech as WAV, FLAC, MP3, OGG or M4A"
_SPELLINGS = {"prompt_text": "transcript", "ref_text": "transcript"}
"""Fields as other servers, and the speech route, have them."""

_FLAVOURS: dict[str, Any] = {"enum": [flavour.value for flavour in Flavour]}


class VoiceForm(BaseModel):
    """The fields of a new voice, but for its audio."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description=ALLOWED)
    transcript: str = Field(
        default="", max_length=MAX_TRANSCRIPT_CHARS, description="what is said in it; better with it than without"
    )
    consent: str = Field(
        default="", max_length=MAX_CONSENT_CHARS, description="a note on who agreed to what; kept with the voice"
    )
    overwrite: bool = Field(default=False, description="replace a voice of this name")


def voice_routes(service: SpeechService) -> APIRouter:
    """Routes under /v1/audio/voices."""
    router = APIRouter()
    keeper = service.voice_keeper

    @router.get(_PATH, summary="Voices that can be asked for by name")
    async def voices(request: Request) -> dict[str, list[dict[str, object]]]:
        await service.voices.look()
        return {"voices": [_info(info) for info in service.voices.infos(caller_of(request))]}

    @router.post(
        _PATH,
        summary="Save a voice",
        status_code=201,
        openapi_extra={
            "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _form_schema()}}}
        },
    )
    async def add(request: Request) -> dict[str, object]:
        form, audio = await _read(request)
        new = NewVoice(form.name, audio, form.transcript, form.consent, form.overwrite, caller_of(request))
        return _details(await keeper.add(new))

    @router.get(f"{_PATH}/{{name}}", summary="One voice: its transcript, and how good its recording was")
    async def voice(request: Request, name: str) -> dict[str, object]:
        return _details(await keeper.details(name, caller_of(request)))

    @router.delete(f"{_PATH}/{{name}}", summary="Remove a saved voice of one's own")
    async def remove(request: Request, name: str) -> dict[str, object]:
        removed = await keeper.remove(name, caller_of(request))
        return {"id": removed, "object": "audio.voice.deleted", "deleted": True}

    @router.get(
        f"{_PATH}/{{name}}/export",
        summary="A saved voice of one's own as spk2info.pt",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}, "description": "a file that CosyVoice reads"}},
    )
    async def export(
        request: Request, name: str, flavour: Annotated[str, Query(json_schema_extra=_FLAVOURS)] = Flavour.ORIGINAL
    ) -> Response:
        if flavour not in set(Flavour):
            raise InputError("flavour", f"{flavour!r} is unknown", ", ".join(Flavour))
        data = await keeper.exported(name, Flavour(flavour), caller_of(request))
        disposition = f"attachment; filename*=UTF-8''{quote(name)}.pt"
        return Response(data, media_type="application/octet-stream", headers={"content-disposition": disposition})

    return router


async def _read(request: Request) -> tuple[VoiceForm, bytes]:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InputError("body", "is no multipart form", "multipart/form-data with name and audio")
    fields: dict[str, object] = {}
    audio: bytes | None = None
    async with request.form(max_files=1, max_fields=16) as form:
        for given, value in form.multi_items():
            name = _SPELLINGS.get(given, given)
            if name in fields or (given in _AUDIO and audio is not None):
                raise InputError(given, "the field is given twice", "each field once")
            if isinstance(value, UploadFile) != (given in _AUDIO):
                raise InputError(given, "file and text are mixed up", "a file as audio, text in all others")
            if isinstance(value, UploadFile):
                audio = await value.read()
            else:
                fields[name] = value
    if audio is None:
        raise InputError("audio", "is missing", _RECORDING)
    return VoiceForm.model_validate(fields), audio


def _info(info: VoiceInfo) -> dict[str, object]:
    return {"id": info.name, "object": "audio.voice", **asdict(info)}


def _details(details: VoiceDetails) -> dict[str, object]:
    quality = None if details.quality is None else asdict(details.quality)
    return {**_info(details.info), "transcript": details.transcript, "consent": details.consent, "quality": quality}


def _form_schema() -> dict[str, object]:
    schema = VoiceForm.model_json_schema()
    schema["properties"]["audio"] = {"type": "string", "format": "binary", "description": _RECORDING}
    schema["required"] = [*schema["required"], "audio"]
    return schema
