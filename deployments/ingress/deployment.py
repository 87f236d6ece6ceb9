"""Ingress: the deployment that holds all doors. Knows which doors there are, not what they do."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from deployments import exposure
from deployments.args import AppArgs
from deployments.ingress.answering import REQUEST_ID
from deployments.ingress.authentication import Authentication
from deployments.ingress.conversion import conversion_routes
from deployments.ingress.described import ERRORS
from deployments.ingress.errors import ANSWERED, answer_for, invalid
from deployments.ingress.guard import Guard
from deployments.ingress.keys import ENVIRONMENT, KeyRing, KeysError
from deployments.ingress.limits import BodyLimit
from deployments.ingress.live.door import live_routes
from deployments.ingress.official import official_routes
from deployments.ingress.official_grpc.cosyvoice_pb2 import Request as OfficialRequest
from deployments.ingress.official_grpc.cosyvoice_pb2 import Response as OfficialResponse
from deployments.ingress.official_grpc.door import OfficialGrpc
from deployments.ingress.page import PAGE_FILES, page_routes
from deployments.ingress.script_door import script_routes
from deployments.ingress.service import SpeechService
from deployments.ingress.speech import speech_routes
from deployments.ingress.status import status_routes
from deployments.ingress.voice_routes import voice_routes
from deployments.live_args import LiveArgs
from deployments.mailbox import TextSource
from deployments.messages import ScriptCall, SpeakCall, SpeechChunk, StageInfo
from deployments.quotas.holder import QuotaHolder
from deployments.text_source import MailboxOwner
from deployments.voices.messages import NewVoice, VoiceDetails, VoiceInfo

logger = logging.getLogger("ray.serve")

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
        quotas: DeploymentHandle | None = None,
    ) -> None:
        """Raises KeysError when there should be API keys and they cannot be used."""
        self._keys = KeyRing.from_settings(args.security)
        if self._keys is not None and quotas is None:
            raise KeysError(f"{ENVIRONMENT} must be set where the application is built, too: on every node")
        for line in exposure.warnings(None, os.environ, keyed=self._keys is not None):
            logger.warning("SECURITY: %s", line)
        stages = {
            "VoiceEncoder": voice_encoder,
            "SpeechLM": speech_lm,
            "FlowDecoder": flow_decoder,
            "Vocoder": vocoder,
        }
        self._texts = MailboxOwner(_GROWING_TEXTS, args.limits.max_text_chars, _FORGET_TEXT_AFTER_S)
        holder = QuotaHolder(quotas, args.security.quota_timeout_s)
        self._service = SpeechService(args, vocoder, stages, self._texts, holder)
        self._official_grpc = OfficialGrpc(self._service, self._keys)
        self._live = LiveArgs("Ingress", args)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._service, self._keys)

    async def speak(self, call: SpeakCall) -> AsyncIterator[SpeechChunk]:
        """The answer to a handle call, chunk by chunk; the last chunk is empty and says so.

        `call.text` may be what `open_text` of any replica gave: it is then spoken while it is written.
        """
        async with aclosing(self._service.speak(call, uuid.uuid4().hex)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def Inference(
        self, request: OfficialRequest, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[OfficialResponse]:
        """CosyVoice's own gRPC service. Serve's gRPC proxy calls the method that is named as the rpc."""
        async with aclosing(self._official_grpc.inference(request, grpc_context)) as responses:
            async for response in responses:
                yield response

    async def read(self, script: ScriptCall) -> AsyncIterator[SpeechChunk]:
        """The same for a script."""
        async with aclosing(self._service.read(script, uuid.uuid4().hex)) as chunks:
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
        await self._service.voices.look()
        return self._service.voices.infos()

    async def add_voice(self, new: NewVoice) -> VoiceDetails:
        """Save a voice. Raises InputError and VoiceRefusedError."""
        return await self._service.voice_keeper.add(new)

    async def voice(self, name: str) -> VoiceDetails:
        """All that is told of a voice. Raises VoiceRefusedError."""
        return await self._service.voice_keeper.details(name)

    async def remove_voice(self, name: str) -> str:
        """Remove a saved voice that everybody shares. Raises VoiceRefusedError."""
        return await self._service.voice_keeper.remove(name)

    async def sample_rate(self) -> int:
        return self._service.sample_rate


def make_api(service: SpeechService, keys: KeyRing | None = None) -> FastAPI:
    """The HTTP application of one ingress replica; open to anyone without keys."""
    api = FastAPI(title="CosyVoice2 speech service", version="0.1.0", responses=ERRORS)
    limits, security = service.args.limits, service.args.security
    # The last one added meets a request first; CORS before keys, as browsers ask for leave without them.
    api.add_middleware(BodyLimit, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    if keys is not None:
        refused_key = partial(service.metrics.refused, "key")
        api.add_middleware(Authentication, keys=keys, on_refused=refused_key, also_open=PAGE_FILES)
    if security.cors_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=security.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["authorization", "content-type", "x-api-key", REQUEST_ID],
            expose_headers=[REQUEST_ID, "x-sample-rate", "server-timing", "retry-after"],
        )
    api.add_middleware(Guard, security=security, max_header_bytes=limits.max_header_bytes)
    api.include_router(speech_routes(service))
    api.include_router(conversion_routes(service))
    api.include_router(script_routes(service))
    api.include_router(live_routes(service))
    api.include_router(official_routes(service))
    api.include_router(voice_routes(service))
    api.include_router(status_routes(service))
    api.include_router(page_routes())

    async def failed(_request: Request, error: Exception) -> JSONResponse:
        return answer_for(error).response()

    async def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return invalid(str(error.detail), status=error.status_code).response()

    api.add_exception_handler(HTTPException, refused)
    for kind in (*ANSWERED, Exception):
        api.add_exception_handler(kind, failed)
    return api
