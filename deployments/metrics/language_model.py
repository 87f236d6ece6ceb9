"""What a replica of the language model counts."""

from __future__ import annotations

import time

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.work import WorkMeter

_FIRST_TOKEN_MS = [5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000, 10000]
_AHEAD_S = [0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60]

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
        self._ahead = Histogram(
            "cosyvoice_lm_run_ahead_s",
            description="Sound of tokens that were given and cannot have been heard yet, when a hop leaves.",
            boundaries=_AHEAD_S,
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

    def hop(self, ahead_tokens: float) -> None:
        self._ahead.observe(max(ahead_tokens / self._token_rate, 0.001))

    @property
    def token_rate(self) -> float:
        return self._token_rate

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
        self._given = self._spoken = 0
        self._first: float | None = None
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
            self._first = time.monotonic()
            self._metrics.first_token(time.monotonic() - self._began)
        self._given += count
        self._spoken += count
        self._metrics.tokens(count)
        self._note()

    def hop(self) -> None:
        """A hop of tokens leaves."""
        if self._first is not None:
            heard_s = time.monotonic() - self._first
            self._metrics.hop(self._spoken - heard_s * self._metrics.token_rate)

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
