"""The conversion door: `POST /v1/audio/conversions`, a recording spoken in another voice."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployments.ingress.answering import AUDIO_ANSWER, answer, request_id_of
from deployments.ingress.authentication import caller_of
from deployments.ingress.body import SOURCE_AUDIO, ConversionBody, read_body, request_body
from deployments.ingress.options import PROMPT_AUDIO
from deployments.ingress.service import SpeechService
from deployments.messages import seeded


def conversion_routes(service: SpeechService) -> APIRouter:
    """Routes that speak what a recording says."""
    router = APIRouter()

    @router.post(
        "/v1/audio/conversions",
        summary="Speak what a recording says in another voice",
        response_class=Response,
        responses=AUDIO_ANSWER,
        openapi_extra={
            "requestBody": request_body(ConversionBody, {"source_audio": SOURCE_AUDIO, "prompt_audio": PROMPT_AUDIO})
        },
    )
    async def convert(request: Request) -> Response:
        body = await read_body(request, ConversionBody)
        call = seeded(body.call().by(caller_of(request)))
        assert call.seed is not None
        request_id = request_id_of(request)

        async def source_tokens(speech_tokens: int) -> int:
            return round(speech_tokens * body.speed)

        chunks = service.speak(call, request_id, streamed=body.stream)
        return await answer(service, body, chunks, request_id=request_id, seed=call.seed, input_tokens=source_tokens)

    return router
