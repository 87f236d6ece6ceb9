"""The door for clients of CosyVoice's own gRPC server, behind Serve's gRPC proxy.

What it asks for is what the official HTTP routes ask for, see `deployments.ingress.official`. Serve carries trailing
metadata to the client only beside a message, and takes what is raised here for a fault of the service; so a refusal is
one empty message with the status set, and nothing is raised. Knows no sockets.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from urllib.parse import unquote

import grpc
from ray.serve.grpc_util import RayServegRPCContext

from cosyvoice_core.audio.encode import wav_header
from cosyvoice_core.errors import InputError
from deployments.ingress.answering import REQUEST_ID, SEED, harmless_id
from deployments.ingress.authentication import shown_key
from deployments.ingress.callers import ANYONE, Caller
from deployments.ingress.errors import Answer, answer_for, invalid
from deployments.ingress.framing import AudioForm, Framing, framed
from deployments.ingress.keys import KeyRing
from deployments.ingress.official import ROUTES, official_call
from deployments.ingress.official_grpc.cosyvoice_pb2 import Request, Response
from deployments.ingress.service import SpeechService
from deployments.messages import SpeakCall, seeded

SERVICER = "deployments.ingress.official_grpc.cosyvoice_pb2_grpc.add_CosyVoiceServicer_to_server"
"""What stands in a Serve config under `grpc_options.grpc_servicer_functions`."""

RETRY_AFTER = "retry-after"
_PUSHBACK = "grpc-retry-pushback-ms"
"""gRPC's own word for it, which its retry policies understand."""

_PROMPT_RATE = 16000
"""Hz, of the samples in `prompt_audio`."""

_ROUTES = {route.name: route for route in ROUTES}
_KINDS = {
    "sft_request": _ROUTES["inference_sft"],
    "zero_shot_request": _ROUTES["inference_zero_shot"],
    "cross_lingual_request": _ROUTES["inference_cross_lingual"],
    "instruct_request": _ROUTES["inference_instruct"],
}
_STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    431: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_PEER = re.compile(r"ipv[46]:\[?([0-9a-fA-F.:]+?)(?:%\w+)?\]?:\d+")


class _RefusedError(Exception):
    """What is wrong with a call before its request is looked at."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


class OfficialGrpc:
    """`CosyVoice.Inference` of one ingress replica."""

    def __init__(self, service: SpeechService, keys: KeyRing | None) -> None:
        self._service = service
        self._keys = keys

    async def inference(self, request: Request, context: RayServegRPCContext) -> AsyncGenerator[Response, None]:
        """Sound of one request as it is made; what goes wrong is the context's status, beside a last empty message."""
        service = self._service
        metadata = _metadata(context)
        request_id = harmless_id(metadata.get(REQUEST_ID, ""))
        told = [(REQUEST_ID, request_id)]
        try:
            caller = self._caller(context)
            self._check_size(request)
            call = seeded(call_of(request, metadata.get(SEED)).by(caller))
            told += [(SEED, str(call.seed)), ("x-sample-rate", str(service.sample_rate))]
            context.set_trailing_metadata(told)
            async with aclosing(service.speak(call, request_id)) as chunks:
                first = await anext(chunks)
                framing = Framing(AudioForm("pcm", service.sample_rate), service.sample_rate)
                async with aclosing(framed(first, chunks, framing)) as sound:
                    async for data in sound:
                        yield Response(tts_audio=data)
            return
        except _RefusedError as error:
            answer = error.answer
        except Exception as error:  # noqa: BLE001 - told to the client as at the other doors
            answer = answer_for(error)
        refuse(context, answer, told)
        yield Response()

    def _caller(self, context: RayServegRPCContext) -> Caller:
        """Who calls. Raises _RefusedError as the HTTP doors refuse."""
        security, limits = self._service.args.security, self._service.args.limits
        if not (security.grpc_from_anywhere or is_local(context.peer())):
            message = "gRPC is answered on the service's own machine only (security.grpc_from_anywhere)"
            raise _RefusedError(invalid(message, status=403, code="address_not_allowed"))
        headers = [(name.encode(), _bytes(value)) for name, value in context.invocation_metadata()]
        if sum(len(name) + len(value) for name, value in headers) > limits.max_header_bytes:
            message = f"metadata: larger than allowed (allowed: {limits.max_header_bytes} bytes)"
            raise _RefusedError(invalid(message, status=431))
        if self._keys is None:
            return ANYONE
        key = shown_key(headers)
        caller = self._keys.caller_of(key) if key else None
        if caller is None:
            self._service.metrics.refused("key")
            message = "no valid API key was given (allowed: metadata authorization: Bearer KEY)"
            raise _RefusedError(invalid(message, status=401, code="invalid_api_key"))
        return caller

    def _check_size(self, request: Request) -> None:
        """Where Serve's proxy has a higher limit (RAY_SERVE_GRPC_MAX_MESSAGE_SIZE)."""
        most = self._service.args.limits.max_body_bytes
        if request.ByteSize() > most:
            raise _RefusedError(invalid(f"request: larger than allowed (allowed: {most} bytes)", "request", status=413))


def call_of(request: Request, seed: str | None = None) -> SpeakCall:
    """What the request asks for; seed: of the metadata. Raises InputError that names what is missing or wrong."""
    kind = request.WhichOneof("RequestPayload")
    if kind is None:
        raise InputError("request", "it is empty", f"one of {', '.join(_KINDS)}")
    payload, route = getattr(request, kind), _KINDS[kind]
    audio: bytes | None = None
    texts: dict[str, str] = {}
    for descriptor, value in payload.ListFields():
        if descriptor.name == "prompt_audio":
            audio = _as_file(value)
        else:
            texts[descriptor.name] = value
    try:
        return official_call(route, texts, audio, seed)
    except InputError as error:
        if error.field != "prompt_wav":
            raise
        raise InputError("prompt_audio", f"{kind} needs it", "16-bit PCM, mono, 16 kHz") from None


def _as_file(samples: bytes) -> bytes:
    if len(samples) % 2:
        raise InputError("prompt_audio", f"{len(samples)} bytes are no 16-bit samples", "16-bit PCM, mono, 16 kHz")
    return wav_header(_PROMPT_RATE, len(samples) // 2) + samples


def refuse(context: RayServegRPCContext, answer: Answer, told: Iterable[tuple[str, str]] = ()) -> None:
    """Set what the client is told; `told`: further trailing metadata."""
    more = [("error-code", answer.code)] if answer.code else []
    message = answer.message
    if answer.retry_after_s:
        seconds = max(math.ceil(answer.retry_after_s), 1)
        message = f"{message} (retry after {seconds} s)"
        more += [(RETRY_AFTER, str(seconds)), (_PUSHBACK, str(round(answer.retry_after_s * 1000)))]
    context.set_code(_STATUS.get(answer.status, grpc.StatusCode.INTERNAL))
    context.set_details(message)
    context.set_trailing_metadata([*told, *more])


def is_local(peer: str) -> bool:
    """Whether a peer, as gRPC writes it, is of the proxy's own machine."""
    if peer.startswith("unix:"):
        return True
    found = _PEER.fullmatch(unquote(peer))
    if found is None:
        return False
    try:
        address = ipaddress.ip_address(found[1])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _metadata(context: RayServegRPCContext) -> dict[str, str]:
    return {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
