"""One request from its arrival to its end, told to all who look on: metrics, the log, and the trace where there is one.

Knows neither doors nor stages: it is told what happens.
"""

from __future__ import annotations

import time
from types import TracebackType

from opentelemetry import trace

from deployments.mailbox import TextSource
from deployments.messages import FirstAudio, SpeakCall
from deployments.metrics import Delivery, ListenerMetrics
from deployments.records import Field, outcome_of, write
from deployments.timing import RequestWatch
from deployments.tracing import first_audio_spans


def delivery_of(call: SpeakCall, *, streamed: bool) -> Delivery:
    if not (call.realtime and streamed):
        return "file"
    return "growing" if isinstance(call.text, TextSource) else "listener"


class RequestRecord:
    """Enter it for as long as the request lasts."""

    def __init__(
        self, metrics: ListenerMetrics, watch: RequestWatch, delivery: Delivery, *, caller: str | None = None
    ) -> None:
        """caller: name of the key that the request came with."""
        self.watch = watch
        self.request_id = watch.request_id
        self._metrics = metrics
        self._fields: dict[str, Field] = {"request": watch.request_id, "delivery": delivery}
        if caller is not None:
            self._fields["caller"] = caller
        self._began = time.monotonic()
        self._span = trace.get_current_span()
        self._stream = metrics.stream(delivery)
        self._replays = 0
        self._complete = False

    def __enter__(self) -> RequestRecord:
        return self

    def first_audio(self, account: FirstAudio) -> None:
        self._stream.first_audio(account)
        self._fields["first_audio_s"] = round(account.total_s, 4)
        # Names of their own, so that each part can be searched for.
        self._fields |= {f"first_audio_{part}_s".replace("-", "_"): round(s, 4) for part, s in account.parts}
        if self._span.is_recording():
            first_audio_spans(self._span, account)

    def chunk(self, audio_s: float, *, last: bool = False) -> None:
        """So much audio leaves now."""
        if audio_s:
            self._stream.chunk(audio_s)
        self._complete = self._complete or last

    def replayed(self) -> None:
        """An utterance is made again after the loss of a stage."""
        self._replays += 1
        self._metrics.replayed()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        outcome, reason = outcome_of(error, complete=self._complete)
        stream = self._stream
        stream.close(outcome, reason if outcome == "refused" else None)
        fields = self._fields | {
            "audio_s": round(stream.audio_s, 4),
            "chunks": stream.chunks,
            "underruns": stream.underruns,
            "underrun_s": round(stream.underrun_s, 4),
            "replays": self._replays,
            "total_s": round(time.monotonic() - self._began, 4),
            "outcome": outcome,
        }
        if reason is not None:
            fields["reason"] = reason
        write("request", fields)
        if self._span.is_recording():
            self._span.set_attributes({f"cosyvoice.{name}": value for name, value in fields.items()})
