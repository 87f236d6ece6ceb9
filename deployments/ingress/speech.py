"""The speech door: `POST /v1/audio/speech`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from deployments.ingress.answering import AUDIO_ANSWER, answer, request_id_of
from deployments.ingress.authentication import caller_of
from deployments.ingress.body import SpeechBody, read_body, request_body
from deployments.ingress.options import PROMPT_AUDIO
from deployments.ingress.service import SpeechService
from deployments.messages import seeded


def speech_routes(service: SpeechService) -> APIRouter:
    """Routes that speak a text."""
    router = APIRouter()

    @router.post(
        "/v1/audio/speech",
        summary="Speak a text",
        response_class=Response,
        responses=AUDIO_ANSWER,
        openapi_extra={"requestBody": request_body(SpeechBody, {"prompt_audio": PROMPT_AUDIO})},
    )
    async def speech(request: Request) -> Response:
        body = await read_body(request, SpeechBody)
        call = seeded(body.call().by(caller_of(request)))
        assert call.seed is not None
        request_id = request_id_of(request)

        async def text_tokens(_speech_tokens: int) -> int:
            return await service.text_tokens(body.input)

        chunks = service.speak(call, request_id, streamed=body.stream)
        return await answer(service, body, chunks, request_id=request_id, seed=call.seed, input_tokens=text_tokens)

    return router
