"""Whether the client itself kept up: how late its event loop runs, and how much of a core it uses.

A chunk that waits in a busy loop looks like a slow service. Knows nothing of what the loop is busy with.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np

_BEAT_S = 0.01
_SATURATED_CPU = 0.9


@dataclass(frozen=True, slots=True)
class ClientLoad:
    """Lateness of the client's event loop (seconds, sampled each 10 ms), its use of one core (1.0 = all of it), and
    how late requests were sent."""

    lag_p50_s: float
    lag_p99_s: float
    lag_max_s: float
    cpu: float
    send_delay_p99_s: float = 0.0
    streams_max: int = 0

    def bottleneck(self, tolerable_lag_s: float) -> str | None:
        """Why the figures are not the service's alone, or None."""
        if self.lag_p99_s > tolerable_lag_s:
            return f"the client's event loop ran {self.lag_p99_s * 1000:.0f} ms late (p99)"
        if self.send_delay_p99_s > tolerable_lag_s:
            return f"the client sent requests {self.send_delay_p99_s * 1000:.0f} ms late (p99)"
        if self.cpu > _SATURATED_CPU:
            return f"the client used {self.cpu:.0%} of a core"
        return None


class Pulse:
    """Beats in the event loop while its context is open; `load` tells how regularly."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._handle: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._cpu_began = self._wall_began = self._cpu = 0.0

    def __enter__(self) -> Pulse:
        self._cpu_began, self._wall_began = time.process_time(), time.monotonic()
        self._schedule(asyncio.get_running_loop())
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._handle is not None
        self._handle.cancel()
        wall = max(time.monotonic() - self._wall_began, 1e-9)
        self._cpu = (time.process_time() - self._cpu_began) / wall

    def load(self, send_delays_s: list[float], streams_max: int) -> ClientLoad:
        """After the context has been left."""
        lags = np.array(self._lags or [0.0])
        p50, p99 = np.quantile(lags, [0.5, 0.99])
        delays = np.quantile(np.array(send_delays_s or [0.0]), 0.99)
        return ClientLoad(float(p50), float(p99), float(lags.max()), self._cpu, float(delays), streams_max)

    def worst_since_last_asked(self) -> float:
        """The latest beat since the last such question, in seconds."""
        worst, self._lags = max(self._lags, default=0.0), []
        return worst

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + _BEAT_S
        self._handle = loop.call_at(self._due, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._lags.append(max(loop.time() - self._due, 0.0))
        self._schedule(loop)
