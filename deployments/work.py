"""What one replica has worked lately: how much of its time, for how much sound. Knows neither Ray nor stages.

Where a CPU computes, work is CPU time: on machines whose cores are shared by many replicas most of a step's duration
may be waiting for a core, which no further replica there would make shorter.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psutil

CpuClock = Callable[[], float]


def cpu_of_thread(pool: ThreadPoolExecutor) -> CpuClock | None:
    """CPU seconds of the only thread of a pool so far; None where the system does not tell (macOS)."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    clock = time.pthread_getcpuclockid(pool.submit(threading.get_ident).result())
    return lambda: time.clock_gettime(clock)


def cpu_of_process(process: int) -> CpuClock:
    """CPU seconds of a process and its children so far; the last known ones when it is gone."""
    root = psutil.Process(process)
    known = 0.0

    def clock() -> float:
        nonlocal known
        try:
            times = [one.cpu_times() for one in (root, *root.children(recursive=True))]
            known = max(known, sum(one.user + one.system for one in times))
        except psutil.Error:
            pass
        return known

    return clock


class WorkMeter:
    """Work and sound of the last `window_s` seconds. Told and asked from any thread."""

    def __init__(
        self,
        cpu: CpuClock | None = None,
        *,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """cpu: seconds that the step loop has computed so far; it then counts instead of what `worked`, `began` and
        `ended` say."""
        self._cpu = cpu
        self._computed = cpu() if cpu else 0.0
        self._window_s = window_s
        self._clock = clock
        self._began = self._settled = clock()
        self._at_work = 0
        self._events: deque[tuple[float, float, float]] = deque()
        self._lock = threading.Lock()

    def worked(self, seconds: float) -> None:
        """A step took so long until now."""
        if self._cpu is None:
            self._note(seconds, 0.0)

    def began(self) -> None:
        """Something is worked at, until `ended`; what overlaps counts once. For loops whose steps are not seen here."""
        self._change(1)

    def ended(self) -> None:
        self._change(-1)

    def made(self, audio_s: float) -> None:
        """So much of the sound was done."""
        if audio_s:
            self._note(0.0, audio_s)

    def stats(self) -> dict[str, float]:
        """busy: share of the time, 0 to 1; made: audio seconds per second; rtf: busy seconds per audio second, 0
        while there is none."""
        with self._lock:
            now = self._clock()
            self._settle(now)
            self._forget(now)
            span = max(min(now - self._began, self._window_s), 1e-3)
            busy = sum(seconds for _, seconds, _ in self._events) / span
            made = sum(audio_s for _, _, audio_s in self._events) / span
        return {"busy": min(busy, 1.0), "made": made, "rtf": busy / made if made else 0.0}

    def _note(self, seconds: float, audio_s: float) -> None:
        with self._lock:
            now = self._clock()
            # So that work and the sound that came of it leave the window together.
            self._settle(now)
            self._forget(now)
            self._events.append((now, seconds, audio_s))

    def _change(self, change: int) -> None:
        with self._lock:
            self._settle(self._clock())
            self._at_work += change

    def _settle(self, now: float) -> None:
        """Note what was worked since this was noted last."""
        if self._cpu is not None:
            computed = self._cpu()
            self._events.append((now, computed - self._computed, 0.0))
            self._computed = computed
        elif self._at_work:
            self._events.append((now, now - self._settled, 0.0))
        self._settled = now

    def _forget(self, now: float) -> None:
        while self._events and self._events[0][0] < now - self._window_s:
            self._events.popleft()
