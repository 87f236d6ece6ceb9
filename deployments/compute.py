"""One thread per replica that owns the device; jobs wait their turn by the listener's deadline.

Knows neither models nor Ray. Keeping all computation in one thread leaves the event loop free to answer, cancel and
be health-checked while the device works.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(order=True, slots=True)
class _Job:
    due: tuple[int, float]
    number: int
    run: Callable[[], Any] = field(compare=False)
    done: asyncio.Future[Any] = field(compare=False)


class ListenerClock:
    """When a listener needs the next audio: whoever has heard nothing comes first, then who runs dry soonest.

    `lead_s`: audio the listener still has before this utterance is heard at all; one that is made ahead of its time
    must not pass those that are waited for.
    """

    __slots__ = ("_arrived", "_first_sent", "_lead_s", "_sent_s")

    def __init__(self, lead_s: float = 0.0) -> None:
        self._arrived = time.monotonic()
        self._lead_s = lead_s
        self._first_sent: float | None = None
        self._sent_s = 0.0

    @property
    def due(self) -> tuple[int, float]:
        if self._lead_s > 0:
            return (1, self._arrived + self._lead_s + self._sent_s)
        if self._first_sent is None:
            return (0, self._arrived)
        return (1, self._first_sent + self._sent_s)

    def sent(self, seconds: float) -> None:
        """Note audio (or frames of it) handed on; nothing counts until the first of it."""
        if seconds <= 0:
            return
        if self._first_sent is None:
            self._first_sent = time.monotonic()
        self._sent_s += seconds

    @property
    def ahead_s(self) -> float:
        """Seconds of audio handed on that a listener cannot have heard yet."""
        if self._first_sent is None:
            return 0.0
        return self._sent_s - (time.monotonic() - self._first_sent)


class ComputeThread:
    """Runs jobs one at a time, earliest due first; a job whose waiter was cancelled never starts."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting: list[_Job] = []
        self._numbers = itertools.count()
        self._pump: asyncio.Task[None] | None = None

    async def run(self, due: tuple[int, float], job: Callable[[], Result]) -> Result:
        """Run `job` in the thread when its turn comes; its exception is raised here and reaches nobody else."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        heapq.heappush(self._waiting, _Job(due, next(self._numbers), job, done))
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._work())
        return await done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            job = heapq.heappop(self._waiting)
            if job.done.done():
                continue
            outcome = (await asyncio.gather(loop.run_in_executor(self._thread, job.run), return_exceptions=True))[0]
            if job.done.done():
                continue
            if isinstance(outcome, BaseException):
                job.done.set_exception(outcome)
            else:
                job.done.set_result(outcome)

    @property
    def queued(self) -> int:
        return len(self._waiting)
