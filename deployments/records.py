"""How work ends, in the log: one line for each utterance in each stage, with the request's id to join them by.

The fields travel as `extra`, so that Serve's JSON logs hold each under its name. The same facts go onto the span that
Serve has open for the call, where tracing is on. Knows neither stages nor doors.
"""

from __future__ import annotations

import asyncio
import logging
import time
from types import TracebackType
from typing import Literal

from opentelemetry import trace
from ray.exceptions import RayTaskError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RequestCancelledError

from cosyvoice_core.errors import InputError
from deployments.mailbox import OverloadedError
from deployments.messages import UtteranceTask
from deployments.quotas.ledger import QuotaError

logger = logging.getLogger("ray.serve")

Outcome = Literal["ok", "cancelled", "refused", "failed"]
Field = str | int | float

_CANCELLED = (asyncio.CancelledError, GeneratorExit, RequestCancelledError, TaskCancelledError)


def outcome_of(error: BaseException | None, *, complete: bool) -> tuple[Outcome, str | None]:
    """How something ended that raised `error` or nothing, and why, in a word of ours; complete: all of it was given."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    if complete and (error is None or isinstance(error, _CANCELLED)):
        return "ok", None
    if error is None or isinstance(error, _CANCELLED):
        return "cancelled", None
    if isinstance(error, InputError):
        return "refused", "invalid"
    if isinstance(error, OverloadedError | BackPressureError):
        return "refused", "overload"
    if isinstance(error, QuotaError):
        return "refused", "quota"
    return "failed", type(error).__name__


def write(event: str, fields: dict[str, Field]) -> None:
    """One line; people find its fields in the message, programs beside it. Strings are shown escaped."""
    shown = " ".join(f"{name}={value!a}" for name, value in fields.items())
    logger.info("%s %s", event, shown, extra={"event": event, **fields})


class UtteranceRecord:
    """One utterance in one stage; enter it for as long as the call lasts."""

    def __init__(self, stage: str, task: UtteranceTask, unit: str) -> None:
        """unit: what the stage makes, in the plural."""
        self._unit = unit
        self._fields: dict[str, Field] = {
            "stage": stage,
            "request": task.request_id,
            "segment": task.utterance.index,
            "known_tokens": len(task.history),
        }
        self._began = time.monotonic()
        self._span = trace.get_current_span()
        self._made = self._hops = 0
        self._complete = False

    def __enter__(self) -> UtteranceRecord:
        return self

    def made(self, count: int, *, last: bool) -> None:
        """So much leaves with a hop."""
        if count and not self._made and self._span.is_recording():
            self._span.add_event("first hop", {self._unit: count})
        self._made += count
        self._hops += 1
        self._complete = self._complete or last

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        outcome, reason = outcome_of(error, complete=self._complete)
        fields = self._fields | {
            self._unit: self._made,
            "hops": self._hops,
            "seconds": round(time.monotonic() - self._began, 4),
            "outcome": outcome,
        }
        if reason is not None:
            fields["reason"] = reason
        write("utterance", fields)
        if self._span.is_recording():
            self._span.set_attributes({f"cosyvoice.{name}": value for name, value in fields.items()})
