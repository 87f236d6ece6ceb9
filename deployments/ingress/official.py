"""The routes of CosyVoice's own FastAPI server, so that its clients work unchanged.

Form fields in a GET or a POST, raw 16-bit PCM at the model's rate out, streamed. Source of the names and fields: the
client and server under `runtime/python/fastapi` in FunAudioLLM/CosyVoice.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.datastructures import UploadFile

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode
from deployments.ingress.answering import REQUEST_ID, request_id_of, server_timing
from deployments.ingress.authentication import caller_of
from deployments.ingress.framing import AudioForm, AudioResponse, Framing, framed
from deployments.ingress.service import SpeechService
from deployments.messages import SpeakCall

_PCM = "application/octet-stream"
_FILE = "prompt_wav"


@dataclass(frozen=True, slots=True)
class OfficialRoute:
    """One of the server's routes: its mode, and the fields it needs."""

    name: str
    mode: Mode
    fields: tuple[str, ...]


# CosyVoice2 has no mode "instruct" of its own: a saved voice that follows an instruction is its instruct2.
ROUTES = (
    OfficialRoute("inference_sft", Mode.SFT, ("tts_text", "spk_id")),
    OfficialRoute("inference_zero_shot", Mode.ZERO_SHOT, ("tts_text", "prompt_text", _FILE)),
    OfficialRoute("inference_cross_lingual", Mode.CROSS_LINGUAL, ("tts_text", _FILE)),
    OfficialRoute("inference_instruct", Mode.INSTRUCT2, ("tts_text", "spk_id", "instruct_text")),
    OfficialRoute("inference_instruct2", Mode.INSTRUCT2, ("tts_text", "instruct_text", _FILE)),
)


def official_routes(service: SpeechService) -> APIRouter:
    """All of the server's routes."""
    router = APIRouter()

    def add(route: OfficialRoute) -> None:
        async def speak(request: Request) -> Response:
            call = (await read_call(route, request)).by(caller_of(request))
            request_id = request_id_of(request)
            chunks = service.speak(call, request_id)
            try:
                first = await anext(chunks)
            except BaseException:
                await chunks.aclose()
                raise
            framing = Framing(AudioForm("pcm", service.sample_rate), service.sample_rate)
            headers = {REQUEST_ID: request_id, "x-sample-rate": str(service.sample_rate)}
            if first.first_audio is not None:
                headers["server-timing"] = server_timing(first.first_audio)
            return AudioResponse(framed(first, chunks, framing), _PCM, headers)

        router.add_api_route(
            f"/{route.name}",
            speak,
            methods=["GET", "POST"],
            summary=f"CosyVoice's own route, mode {route.mode.value}",
            response_class=Response,
            responses={200: {"content": {_PCM: {}}, "description": "16-bit PCM, mono, as it is made"}},
            openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": _schema(route)}}}},
            operation_id=route.name,
        )

    for route in ROUTES:
        add(route)
    return router


async def read_call(route: OfficialRoute, request: Request) -> SpeakCall:
    """Raises InputError that names a field that is missing, or that the route does not know."""
    texts: dict[str, str] = {}
    audio: bytes | None = None
    async with request.form(max_files=1, max_fields=16) as form:
        for name, value in form.multi_items():
            if name not in route.fields:
                raise InputError(name, f"{route.name} has no such field", ", ".join(route.fields))
            if isinstance(value, UploadFile) != (name == _FILE):
                raise InputError(name, "file and text are mixed up", f"a file as {_FILE}, text in all others")
            if isinstance(value, UploadFile):
                audio = await value.read()
            else:
                texts[name] = value
    for name in route.fields:
        if name not in texts and not (name == _FILE and audio is not None):
            raise InputError(name, f"{route.name} needs it", ", ".join(route.fields))
    return SpeakCall(
        text=texts["tts_text"],
        voice=texts.get("spk_id"),
        prompt_audio=audio,
        prompt_text=texts.get("prompt_text", ""),
        mode=route.mode,
        instructions=texts.get("instruct_text", ""),
    )


def _schema(route: OfficialRoute) -> dict[str, object]:
    properties: dict[str, object] = {
        name: {"type": "string", **({"format": "binary"} if name == _FILE else {})} for name in route.fields
    }
    return {"type": "object", "properties": properties, "required": list(route.fields)}
