"""What the stages count, for Ray's Prometheus endpoint of each node. Names there begin with `ray_`.

Ray adds application, deployment and replica as tags.
"""

from __future__ import annotations

import time

from ray.serve.metrics import Counter, Gauge, Histogram

from cosyvoice_core.flow.load import FlowLoad
from deployments.work import WorkMeter

_STEP_ROWS = [1, 2, 4, 8, 16, 32, 64]
_STEP_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
_FIRST_TOKEN_MS = [5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000]


_AT_WORK = ("waiting", "running")


class LanguageModelMetrics:
    """Requests of one replica of the language model by what they are doing, and the tokens it gives.

    waiting: no token yet; paused: the text ran out while it is still being written; running: all others. The replica
    works while any is waiting or running.
    """

    def __init__(self, meter: WorkMeter, token_rate: float) -> None:
        """token_rate: speech tokens of one second of sound."""
        self._meter = meter
        self._token_rate = token_rate
        self._open: set[RequestMetrics] = set()
        self._first_token = Histogram(
            "cosyvoice_lm_first_token_ms",
            description="Time from a request's arrival (or its first text) to its first speech token.",
            boundaries=_FIRST_TOKEN_MS,
        )
        self._tokens = Counter("cosyvoice_lm_tokens", description="Speech tokens generated.")
        self._gauges = {
            state: Gauge(f"cosyvoice_lm_{state}_requests", description=f"Requests that are {state} now.")
            for state in ("waiting", "running", "paused")
        }
        self._counts = dict.fromkeys(self._gauges, 0)
        for gauge in self._gauges.values():
            gauge.set(0)

    def request(self) -> RequestMetrics:
        return RequestMetrics(self)

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(max(seconds * 1000, 0.001))

    def tokens(self, count: int) -> None:
        if count:
            self._tokens.inc(count)
            self._meter.made(count / self._token_rate)

    @property
    def owed_s(self) -> float:
        """Sound that requests with text would have by now if they were spoken in real time, and have not."""
        now = time.monotonic()
        return sum(request.owed_s(now, self._token_rate) for request in self._open)

    def moved(self, request: RequestMetrics, before: str | None, after: str | None) -> None:
        """A request goes from one state to another; None is outside."""
        if before == after:
            return
        if before is None:
            self._open.add(request)
        if after is None:
            self._open.discard(request)
        if after in _AT_WORK and before not in _AT_WORK:
            self._meter.began()
        if before in _AT_WORK and after not in _AT_WORK:
            self._meter.ended()
        for state, change in ((before, -1), (after, 1)):
            if state is not None:
                self._counts[state] += change
                self._gauges[state].set(self._counts[state])


class RequestMetrics:
    """One request; enter it for as long as it lasts."""

    def __init__(self, metrics: LanguageModelMetrics) -> None:
        self._metrics = metrics
        self._state: str | None = None
        self._began = self._owes_from = time.monotonic()
        self._given = 0
        self._heard = False
        self._paused = False

    def __enter__(self) -> RequestMetrics:
        self._update("waiting")
        return self

    def __exit__(self, *_error: object) -> None:
        self._update(None)

    def tokens(self, count: int) -> None:
        """So many tokens were given."""
        if count and not self._heard:
            self._heard = True
            self._metrics.first_token(time.monotonic() - self._began)
        self._given += count
        self._metrics.tokens(count)
        self._note()

    def text_awaited(self) -> None:
        """All text there was has been taken, and more is to come."""
        self._paused = True
        self._note()

    def text_arrived(self) -> None:
        if self._paused:
            self._owes_from, self._given = time.monotonic(), 0
            if not self._heard:
                self._began = self._owes_from
        self._paused = False
        self._note()

    def owed_s(self, now: float, token_rate: float) -> float:
        return 0.0 if self._paused else max(now - self._owes_from - self._given / token_rate, 0.0)

    def _note(self) -> None:
        if self._state is not None:
            self._update("paused" if self._paused else "running" if self._heard else "waiting")

    def _update(self, state: str | None) -> None:
        self._metrics.moved(self, self._state, state)
        self._state = state


class StepMetrics:
    """Steps of one replica's engine: how many rows each has, and how long it takes."""

    def __init__(self, stage: str, rows: str) -> None:
        self._rows = Histogram(
            f"cosyvoice_{stage}_step_{rows}",
            description=f"How many {rows} of different utterances one step of the {stage} computes.",
            boundaries=_STEP_ROWS,
        )
        self._seconds = Histogram(
            f"cosyvoice_{stage}_step_ms", description=f"Time of one step of the {stage}.", boundaries=_STEP_MS
        )

    def observe(self, rows: int, seconds: float) -> None:
        self._rows.observe(rows)
        self._seconds.observe(max(seconds * 1000, 0.001))


class FlowMetrics:
    """One replica of the flow decoder: its steps, who waits, the memory of its caches, and what memory cost."""

    def __init__(self) -> None:
        self._steps = StepMetrics("flow", "streams")
        self._gauges = {
            field: Gauge(f"cosyvoice_flow_{name}", description=description)
            for field, name, description in (
                ("open", "open_streams", "Utterances that hold state now."),
                ("waiting", "waiting_streams", "Utterances with work that were not part of the latest step."),
                ("free_pages", "free_pages", "Pages of the cache memory, one for each chunk, that nobody holds."),
                ("cache_bytes", "cache_bytes", "Bytes of the cache memory that utterances and voices hold."),
            )
        }
        self._counters = {
            field: Counter(f"cosyvoice_flow_{name}", description=description)
            for field, name, description in (
                ("recomputed", "recomputed_chunks", "Chunks that computed earlier frames again for want of memory."),
                ("prefix_hits", "prefix_hits", "Utterances whose voice's prompt was computed before."),
                ("prefix_misses", "prefix_misses", "Utterances whose voice's prompt was not known or not kept."),
            )
        }
        self._counted = dict.fromkeys(self._counters, 0)

    def observe(self, load: FlowLoad, seconds: float | None) -> None:
        """`seconds` of the step that led to this state, None where it was no step."""
        if seconds is not None and load.stepped:
            self._steps.observe(load.stepped, seconds)
        for field, gauge in self._gauges.items():
            gauge.set(getattr(load, field))
        for field, counter in self._counters.items():
            total = getattr(load, field)
            if total > self._counted[field]:
                counter.inc(total - self._counted[field])
                self._counted[field] = total
