"""What the stages count, for Ray's Prometheus endpoint of each node. Names there begin with `ray_`.

Ray adds application, deployment and replica as tags.
"""

from __future__ import annotations

import time

from ray.serve.metrics import Counter, Gauge, Histogram

from cosyvoice_core.flow.load import FlowLoad

_STEP_ROWS = [1, 2, 4, 8, 16, 32, 64]
_STEP_MS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
_FIRST_TOKEN_MS = [5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000]


class LanguageModelMetrics:
    """Requests of one replica of the language model by what they are doing, and the tokens it gives.

    waiting: no token yet; paused: the text ran out while it is still being written; running: all others.
    """

    def __init__(self) -> None:
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

    def moved(self, before: str | None, after: str | None) -> None:
        """A request goes from one state to another; None is outside."""
        if before == after:
            return
        for state, change in ((before, -1), (after, 1)):
            if state is not None:
                self._counts[state] += change
                self._gauges[state].set(self._counts[state])


class RequestMetrics:
    """One request; enter it for as long as it lasts."""

    def __init__(self, metrics: LanguageModelMetrics) -> None:
        self._metrics = metrics
        self._state: str | None = None
        self._began = time.monotonic()
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
        self._metrics.tokens(count)
        self._note()

    def text_awaited(self) -> None:
        """All text there was has been taken, and more is to come."""
        self._paused = True
        self._note()

    def text_arrived(self) -> None:
        if self._paused and not self._heard:
            self._began = time.monotonic()
        self._paused = False
        self._note()

    def _note(self) -> None:
        if self._state is not None:
            self._update("paused" if self._paused else "running" if self._heard else "waiting")

    def _update(self, state: str | None) -> None:
        self._metrics.moved(self._state, state)
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
