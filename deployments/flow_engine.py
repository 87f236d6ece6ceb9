"""The flow's step loop of one replica: a thread that owns the device, and a scheduler that says who steps.

An utterance joins at the next Euler step and leaves at the next one after it is cancelled. The thread alone touches
streams; what changes is noted by the event loop and taken up between two steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

from torch import Tensor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.flow.load import FlowLoad
from cosyvoice_core.flow.scheduler import FlowScheduler, FlowVoice, Outcome, Push
from cosyvoice_core.flow.stream import FlowStream
from deployments.compute import ListenerClock
from deployments.work import CpuClock, cpu_of_thread

OnLoad = Callable[[FlowLoad, float | None], None]


def _unobserved(_load: FlowLoad, _seconds: float | None) -> None:
    return None


class FlowEngine:
    """One step loop over all streams of a replica."""

    def __init__(self, scheduler: FlowScheduler, on_load: OnLoad = _unobserved) -> None:
        """`on_load` is told how things are: at once, and in the step thread after each step, with its seconds, and
        each close."""
        self._scheduler = scheduler
        self._on_load = on_load
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flow")
        self._jobs: dict[Push, asyncio.Queue[Outcome]] = {}
        self._driver: asyncio.Task[None] | None = None
        on_load(scheduler.load, None)

    @asynccontextmanager
    async def stream(self, voice: FlowVoice, clock: ListenerClock) -> AsyncIterator[FlowStream]:
        """A stream whose prompt's own chunks are done; leaving the context frees all it holds."""
        opening = self._thread.submit(self._scheduler.open, voice, lambda: clock.due, lambda: clock.ahead_s)
        try:
            stream = await asyncio.wrap_future(opening)
            async for _ in self.push(stream, (), clock, last=False):
                pass
            await asyncio.wrap_future(self._thread.submit(self._scheduler.remember, stream))
            yield stream
        finally:
            # Not awaited: whoever is cancelled does not wait for the step that runs now. The thread takes its work in
            # order, so that a stream whose opening nobody awaits any more is closed as well.
            self._thread.submit(self._close, opening)

    def _close(self, opening: Future[FlowStream]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._scheduler.close(opening.result())
            self._on_load(self._scheduler.load, None)

    async def push(
        self,
        stream: FlowStream,
        tokens: Sequence[int],
        clock: ListenerClock,
        *,
        last: bool,
        began: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Tensor, None]:
        """Mel (bins, frames) of each chunk that the tokens complete, as it is done; closing it leaves the rest undone.

        began: called in the step thread at each step.
        Raises what is wrong with this stream alone: InputError beyond 300 s, EngineError for a broken result.
        """
        push = Push(stream, tokens, last, began)
        outbox = self._jobs[push] = asyncio.Queue()
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        try:
            while True:
                outcome = await outbox.get()
                if isinstance(outcome.result, Exception):
                    raise outcome.result
                if outcome.result is None:
                    return
                yield outcome.result
        finally:
            self._jobs.pop(push, None)

    def cpu_clock(self) -> CpuClock | None:
        """CPU seconds that the step thread has computed so far."""
        return cpu_of_thread(self._thread)

    @property
    def running(self) -> int:
        """Pushes that are not done."""
        return len(self._jobs)

    @property
    def owed_tokens(self) -> int:
        """Tokens of pushes that are not done."""
        return sum(len(push.tokens) for push in self._jobs)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while self._jobs:
            pushes = list(self._jobs)
            step = loop.run_in_executor(self._thread, self._step, pushes)
            outcomes = (await asyncio.gather(step, return_exceptions=True))[0]
            if isinstance(outcomes, BaseException):
                # A fault of the loop itself must not leave anybody waiting for ever.
                fault = EngineError(f"a step of the flow decoder failed: {outcomes}")
                outcomes = [Outcome(push, fault) for push in pushes]
            for outcome in outcomes:
                outbox = self._jobs.get(outcome.push)
                if outbox is not None:
                    outbox.put_nowait(outcome)
                    if outcome.ended:
                        del self._jobs[outcome.push]

    def _step(self, pushes: Sequence[Push]) -> list[Outcome]:
        """In the step thread."""
        began = time.perf_counter()
        outcomes = self._scheduler.step(pushes)
        self._on_load(self._scheduler.load, time.perf_counter() - began)
        return outcomes
