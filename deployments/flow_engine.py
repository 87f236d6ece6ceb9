"""Steps the chunks of all utterances of a replica together, in one thread, the most urgent ones first.

An utterance joins at the next Euler step and leaves at the next one after it is cancelled. The thread alone touches
streams that have work; what changes is noted by the event loop and taken up between two steps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.stepper import FlowStepper
from cosyvoice_core.flow.stream import FlowStream
from deployments.compute import ListenerClock


@dataclass(eq=False, slots=True)
class _Job:
    """One push of a stream: its tokens, and where the mel of the chunks they complete is wanted."""

    stream: FlowStream
    clock: ListenerClock
    tokens: Sequence[int]
    last: bool
    outbox: asyncio.Queue[Tensor | Exception | None] = field(default_factory=asyncio.Queue)
    fed: bool = False


class FlowEngine:
    """One step loop over all streams of a replica."""

    def __init__(self, model: FlowModel, max_batch: int) -> None:
        """`max_batch`: streams in one estimator call; more wait for a place, the most urgent ones never."""
        self._stepper = FlowStepper(model)
        self._max_batch = max_batch
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flow")
        self._jobs: list[_Job] = []
        self._driver: asyncio.Task[None] | None = None

    async def push(
        self, stream: FlowStream, tokens: Sequence[int], clock: ListenerClock, *, last: bool
    ) -> AsyncGenerator[Tensor, None]:
        """Mel (bins, frames) of each chunk that the tokens complete, as it is done; closing it leaves the rest undone.

        Raises what is wrong with this stream alone: InputError beyond 300 s, EngineError for a broken result.
        """
        job = _Job(stream, clock, tokens, last)
        self._jobs.append(job)
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        try:
            while True:
                result = await job.outbox.get()
                if result is None:
                    return
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            if job in self._jobs:
                self._jobs.remove(job)

    @property
    def running(self) -> int:
        return len(self._jobs)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while self._jobs:
            batch = sorted(self._jobs, key=lambda job: job.clock.due)[: self._max_batch]
            for job, result in await loop.run_in_executor(self._thread, self._step, batch):
                if job in self._jobs:
                    job.outbox.put_nowait(result)
                    if result is None or isinstance(result, Exception):
                        self._jobs.remove(job)

    def _step(self, batch: Sequence[_Job]) -> list[tuple[_Job, Tensor | Exception | None]]:
        """In the step thread: one Euler step for each job that has a chunk; what came of it."""
        results: list[tuple[_Job, Tensor | Exception | None]] = []
        ready: list[_Job] = []
        for job in batch:
            try:
                if not job.fed:
                    job.stream.feed(job.tokens, last=job.last)
                    job.fed = True
                if job.stream.begin() is None:
                    results.append((job, None))
                else:
                    ready.append(job)
            except (InputError, EngineError, ValueError) as error:
                results.append((job, error))
        if not ready:
            return results
        try:
            complete = set(self._stepper.step([job.stream for job in ready]))
        except RuntimeError as error:
            # The caches of these streams are in an unknown state; others are not in this call.
            failure = EngineError(f"a step of the flow decoder failed: {error}")
            return results + [(job, failure) for job in ready]
        for job in ready:
            if job.stream in complete:
                try:
                    results.append((job, job.stream.finish()))
                    if not job.stream.ready:
                        results.append((job, None))
                except EngineError as error:
                    results.append((job, error))
        return results
