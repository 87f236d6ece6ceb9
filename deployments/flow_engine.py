"""The flow's step loop of one replica: a thread that owns the device, and a scheduler that says who steps.

An utterance joins at the next Euler step and leaves at the next one after it is cancelled. The thread alone touches
streams; what changes is noted by the event loop and taken up between two steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

from torch import Tensor

from cosyvoice_core.flow.scheduler import FlowScheduler, FlowVoice, Outcome, Push
from cosyvoice_core.flow.stream import FlowStream
from deployments.compute import ListenerClock


class FlowEngine:
    """One step loop over all streams of a replica."""

    def __init__(self, scheduler: FlowScheduler) -> None:
        self._scheduler = scheduler
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flow")
        self._jobs: dict[Push, asyncio.Queue[Outcome]] = {}
        self._driver: asyncio.Task[None] | None = None

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

    @property
    def running(self) -> int:
        """Pushes that are not done."""
        return len(self._jobs)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while self._jobs:
            for outcome in await loop.run_in_executor(self._thread, self._scheduler.step, list(self._jobs)):
                outbox = self._jobs.get(outcome.push)
                if outbox is not None:
                    outbox.put_nowait(outcome)
                    if outcome.ended:
                        del self._jobs[outcome.push]
