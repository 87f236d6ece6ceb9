"""Errors as HTTP answers in the shape of OpenAI's API: {"error": {message, type, param, code}}."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from fastapi.responses import JSONResponse
from pydantic import ValidationError
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from cosyvoice_core.errors import InputError
from deployments.ingress.utterance import StageStalledError
from deployments.mailbox import OverloadedError
from deployments.messages import StreamCutError

logger = logging.getLogger("ray.serve")

_RETRY_AFTER_S = "1"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and error object of one failure."""

    status: int
    message: str
    kind: str
    param: str | None = None
    code: str | None = None

    def response(self) -> JSONResponse:
        body = {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
        headers = {"Retry-After": _RETRY_AFTER_S} if self.status == 503 else None
        return JSONResponse(body, status_code=self.status, headers=headers)


def invalid(message: str, param: str | None = None, *, status: int = 400, code: str | None = None) -> Answer:
    return Answer(status, message, "invalid_request_error", param, code)


def answer_for(error: BaseException) -> Answer:
    """The answer that says what went wrong, and for the user's own mistakes what is allowed."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return answer_for(error.cause)
    if isinstance(error, InputError):
        return invalid(str(error), error.field, status=404 if error.field == "model" else 400)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        return invalid(f"{param or 'body'}: {first['msg']}", param)
    if isinstance(error, OverloadedError):
        return Answer(503, str(error), "server_error", code="overloaded")
    if isinstance(error, BackPressureError | DeploymentUnavailableError):
        return Answer(503, "all replicas are busy; try again shortly", "server_error", code="overloaded")
    if isinstance(error, RayActorError | StreamCutError):
        return Answer(503, "a stage was lost while answering; try again", "server_error", code="stage_lost")
    if isinstance(error, StageStalledError):
        return Answer(504, str(error), "server_error", code="timeout")
    logger.error("request failed", exc_info=error)
    return Answer(500, "the request failed inside the service", "server_error", code="internal_error")
