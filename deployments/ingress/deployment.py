"""Ingress: the deployment that holds all doors. Knows which doors there are, not what they do."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException

from deployments.args import AppArgs
from deployments.ingress.errors import answer_for, invalid
from deployments.ingress.limits import BodyLimit
from deployments.ingress.live.door import live_routes
from deployments.ingress.official import official_routes
from deployments.ingress.service import SpeechService
from deployments.ingress.speech import speech_routes
from deployments.ingress.status import status_routes
from deployments.live_args import LiveArgs
from deployments.mailbox import TextSource
from deployments.messages import SpeakCall, SpeechChunk, StageInfo, VoiceInfo
from deployments.text_source import MailboxOwner

# Of one replica: what callers write, and for each of those a few utterances on their way to the language model.
_GROWING_TEXTS = 1024
# Texts are dropped by whoever speaks them; these were opened and never spoken.
_FORGET_TEXT_AFTER_S = 3600.0


class Ingress:
    """One replica of the doors: HTTP routes, and methods for other Ray apps that hold a handle."""

    def __init__(
        self,
        args: AppArgs,
        voice_encoder: DeploymentHandle,
        speech_lm: DeploymentHandle,
        flow_decoder: DeploymentHandle,
        vocoder: DeploymentHandle,
    ) -> None:
        stages = {
            "VoiceEncoder": voice_encoder,
            "SpeechLM": speech_lm,
            "FlowDecoder": flow_decoder,
            "Vocoder": vocoder,
        }
        self._texts = MailboxOwner(_GROWING_TEXTS, args.limits.max_text_chars, _FORGET_TEXT_AFTER_S)
        self._service = SpeechService(args, vocoder, stages, self._texts)
        self._live = LiveArgs("Ingress", args)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._service)

    async def speak(self, call: SpeakCall) -> AsyncIterator[SpeechChunk]:
        """The answer to a handle call, chunk by chunk; the last chunk is empty and says so.

        `call.text` may be what `open_text` of any replica gave: it is then spoken while it is written.
        """
        async with aclosing(self._service.speak(call, uuid.uuid4().hex)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def open_text(self) -> TextSource:
        """A text to be written with `deployments.text_source.TextWriter`. Raises OverloadedError."""
        return await self._service.open_text()

    async def reconfigure(self, user_config: object) -> None:
        """Called by Serve at start and when `user_config` changes; counts for calls that come later."""
        self._live.take(user_config, self._service.reconfigure)
        self._service.config_problem = self._live.problem

    async def info(self) -> StageInfo:
        """What this replica holds; `running` are listeners who are in."""
        held = await self._texts.count() + self._service.waiting
        running, problem = self._service.listeners, self._live.problem
        return StageInfo("Ingress", "cpu", "none", "none", os.getpid(), running, held, problem)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve for the autoscaling policy, see `deployments.scaling_policy`."""
        return {"waiting": float(self._service.waiting)}

    async def voices(self) -> list[VoiceInfo]:
        return self._service.voices.infos()

    async def sample_rate(self) -> int:
        return self._service.sample_rate


def make_api(service: SpeechService) -> FastAPI:
    """The HTTP application of one ingress replica."""
    api = FastAPI(title="CosyVoice2 speech service", version="0.1.0")
    api.add_middleware(BodyLimit, max_bytes=service.args.limits.max_body_bytes)
    api.include_router(speech_routes(service))
    api.include_router(live_routes(service))
    api.include_router(official_routes(service))
    api.include_router(status_routes(service))

    async def failed(_request: Request, error: Exception) -> JSONResponse:
        return answer_for(error).response()

    async def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return invalid(str(error.detail), status=error.status_code).response()

    api.add_exception_handler(HTTPException, refused)
    api.add_exception_handler(ValidationError, failed)
    api.add_exception_handler(ValueError, failed)
    api.add_exception_handler(Exception, failed)
    return api
