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
from dataclasses import dataclass

import psutil

CpuClock = Callable[[], float]
OnWork = Callable[[float, float], None]
"""(seconds of work, audio seconds done) since the last call."""


def cpu_of_thread(pool: ThreadPoolExecutor) -> CpuClock | None:
    """CPU seconds of the only thread of a pool so far; None where the system does not tell (macOS)."""
    if not hasattr(time, "pthread_getcpuclockid"):
        return None
    clock = time.pthread_getcpuclockid(pool.submit(threading.get_ident).result())
    return lambda: time.clock_gettime(clock)


def cpu_of_process(process: int) -> CpuClock:
    """CPU seconds of a process and the children it has now; the last known ones when one is gone."""
    root = psutil.Process(process)
    watched = (root, *root.children(recursive=True))
    known = 0.0

    def clock() -> float:
        nonlocal known
        try:
            times = [one.cpu_times() for one in watched]
            known = max(known, sum(one.user + one.system for one in times))
        except psutil.Error:
            pass
        return known

    return clock


_BINS = 100


@dataclass(slots=True)
class _Bin:
    """A hundredth of the window."""

    began: float
    busy: float = 0.0
    made: float = 0.0


class WorkMeter:
    """Work and sound of the last `window_s` seconds. Told and asked from any thread."""

    def __init__(
        self,
        cpu: CpuClock | None = None,
        *,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        on_work: OnWork = lambda _busy_s, _audio_s: None,
    ) -> None:
        """cpu: seconds that the step loop has computed so far; it then counts instead of what `worked`, `began` and
        `ended` say. on_work: told a hundred times a window at most, and by `stats`."""
        self._cpu = cpu
        self._computed = cpu() if cpu else 0.0
        self._window_s = window_s
        self._clock = clock
        self._began = self._settled = clock()
        self._at_work = 0
        self._bins: deque[_Bin] = deque()
        self._lock = threading.Lock()
        self._on_work = on_work
        self._untold_busy = self._untold_made = 0.0

    def worked(self, seconds: float) -> None:
        """A step took so long until now."""
        if self._cpu is None:
            self._note(seconds, 0.0)

    def began(self) -> None:
        """Something is worked at, until `ended`; what overlaps counts once. For loops whose steps are not seen here."""
        self._at_work_changes(1)

    def ended(self) -> None:
        self._at_work_changes(-1)

    def made(self, audio_s: float) -> None:
        """So much of the sound was done."""
        if audio_s:
            self._note(0.0, audio_s)

    def stats(self) -> dict[str, float]:
        """busy: share of the time, 0 to 1; made: audio seconds per second; rtf: busy seconds per audio second, 0
        while there is none."""
        with self._lock:
            now = self._clock()
            self._settle(now, self._bin(now))
            self._tell()
            span = max(min(now - self._began, self._window_s), 1e-3)
            busy = sum(one.busy for one in self._bins) / span
            made = sum(one.made for one in self._bins) / span
        return {"busy": min(busy, 1.0), "made": made, "rtf": busy / made if made else 0.0}

    def _note(self, seconds: float, audio_s: float) -> None:
        with self._lock:
            current = self._bin(self._clock())
            current.busy += seconds
            current.made += audio_s
            self._untold_busy += seconds
            self._untold_made += audio_s

    def _at_work_changes(self, change: int) -> None:
        with self._lock:
            now = self._clock()
            self._settle(now, self._bin(now))
            self._at_work += change
            if not self._at_work:
                self._tell()

    def _bin(self, now: float) -> _Bin:
        """That of now. Sound is noted for every batch of tokens, while to ask the system for CPU time takes a moment;
        so work is settled once a bin, early enough to leave the window with the sound that came of it."""
        while self._bins and self._bins[0].began < now - self._window_s:
            self._bins.popleft()
        if not self._bins or now - self._bins[-1].began >= self._window_s / _BINS:
            self._bins.append(_Bin(now))
            self._settle(now, self._bins[-1])
            self._tell()
        return self._bins[-1]

    def _settle(self, now: float, current: _Bin) -> None:
        """Note what was worked since this was noted last."""
        busy = 0.0
        if self._cpu is not None:
            computed = self._cpu()
            busy = computed - self._computed
            self._computed = computed
        elif self._at_work:
            busy = now - self._settled
        current.busy += busy
        self._untold_busy += busy
        self._settled = now

    def _tell(self) -> None:
        if self._untold_busy or self._untold_made:
            self._on_work(self._untold_busy, self._untold_made)
            self._untold_busy = self._untold_made = 0.0
