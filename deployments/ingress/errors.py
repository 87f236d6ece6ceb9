"""Errors as HTTP answers in the shape of OpenAI's API: {"error": {message, type, param, code}}."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from pydantic import ValidationError
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from cosyvoice_core.errors import InputError, shown
from deployments.ingress.utterance import StageStalledError
from deployments.mailbox import OverloadedError
from deployments.messages import StreamCutError
from deployments.quotas.ledger import QuotaError
from deployments.voices.refusal import Reason, VoiceRefusedError

logger = logging.getLogger("ray.serve")

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and error object of one failure."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None
    retry_after_s: float | None = None

    def body(self) -> dict[str, str | None]:
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def response(self) -> JSONResponse:
        # Whole seconds, as HTTP has it.
        headers = {"Retry-After": str(max(math.ceil(self.retry_after_s), 1))} if self.retry_after_s else None
        return JSONResponse({"error": self.body()}, status_code=self.status, headers=headers)


def invalid(message: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> Answer:
    return Answer(status, message, "invalid_request_error", param, code)


def _overloaded(message: str, retry_after_s: float) -> Answer:
    return Answer(429, message, "server_error", code="overloaded", retry_after_s=max(retry_after_s, _RETRY_AFTER_S))


def _unavailable(message: str, code: str) -> Answer:
    return Answer(503, message, "server_error", code=code, retry_after_s=_RETRY_AFTER_S)


_VOICE_STATUS = {
    Reason.NO_STORE: 501,
    Reason.UNKNOWN: 404,
    Reason.EXISTS: 409,
    Reason.FORBIDDEN: 403,
    Reason.TOO_MANY: 409,
    Reason.DAMAGED: 500,
}


def _voice_refused(error: VoiceRefusedError) -> Answer:
    if error.reason is Reason.UNAVAILABLE:
        return _unavailable(str(error), error.reason.value)
    status = _VOICE_STATUS[error.reason]
    kind = "invalid_request_error" if status < 500 else "server_error"
    return Answer(status, str(error), kind, "voice", error.reason.value)


def answer_for(error: BaseException) -> Answer:
    """The answer that says what went wrong, and for the user's own mistakes what is allowed."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return answer_for(error.cause)
    if isinstance(error, InputError):
        return invalid(str(error), error.field, status=404 if error.field == "model" else 400)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Names of unknown fields, and words of a lexicon, are the user's.
        param = shown(".".join(str(part) for part in first["loc"]), 100) or None
        return invalid(f"{param or 'body'}: {shown(first['msg'], 500)}", param)
    if isinstance(error, VoiceRefusedError):
        return _voice_refused(error)
    if isinstance(error, QuotaError):
        kind = "rate_limit_error"
        return Answer(429, str(error), kind, code="rate_limit_exceeded", retry_after_s=error.retry_after_s)
    if isinstance(error, OverloadedError):
        return _overloaded(str(error), error.retry_after_s)
    if isinstance(error, BackPressureError):
        return _overloaded("all replicas are busy; try again shortly", _RETRY_AFTER_S)
    if isinstance(error, DeploymentUnavailableError):
        return _unavailable("a stage is not available; try again shortly", "unavailable")
    if isinstance(error, RayActorError | StreamCutError):
        return _unavailable("a stage was lost while answering; try again", "stage_lost")
    if isinstance(error, StageStalledError):
        return Answer(504, str(error), "server_error", code="timeout")
    logger.error("request failed", exc_info=error)
    return Answer(500, "the request failed inside the service", "server_error", code="internal_error")
