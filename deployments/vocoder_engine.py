"""Vocodes the windows of all utterances of a replica together, in one thread, the most urgent ones first.

Windows are self-contained, so an utterance joins with its next window and leaves with none half done. Those of the
same shape as the most urgent one go with it; the others wait for a call of their own, which is the next as soon as
one of them is the most urgent. The thread alone touches sessions that have work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.vocoder import PreparedWindow, VocodedWindow, WindowRunner, WindowShape
from cosyvoice_core.waveform import WaveformSession
from deployments.compute import ListenerClock
from deployments.work import CpuClock, cpu_of_thread

OnStep = Callable[[int, float], None]


def _unobserved(_rows: int, _seconds: float) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples (N,) float32, on the host, perhaps none; `complete`: the mel that was pushed gives no more."""

    samples: Tensor
    complete: bool


@dataclass(eq=False, slots=True)
class _Job:
    """One push of a session: its mel, and where the audio it completes is wanted."""

    session: WaveformSession
    clock: ListenerClock
    mel: Tensor
    last: bool
    began: Callable[[], None]
    outbox: asyncio.Queue[Piece | Exception] = field(default_factory=asyncio.Queue)
    fed: bool = False


_Result = tuple[_Job, Piece | Exception]


class VocoderEngine:
    """One step loop over all sessions of a replica."""

    def __init__(self, runner: WindowRunner, on_step: OnStep = _unobserved) -> None:
        """`on_step` is told the rows and seconds of each call of the model, in the thread that makes them."""
        self._runner = runner
        self._on_step = on_step
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vocoder")
        self._jobs: list[_Job] = []
        self._driver: asyncio.Task[None] | None = None

    async def push(
        self,
        session: WaveformSession,
        mel: Tensor,
        clock: ListenerClock,
        *,
        last: bool,
        began: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Piece, None]:
        """The audio that mel (bins, T) completes, window by window; closing it leaves the rest undone.

        At least one piece comes, and the last one is complete. began: called in the step thread at each window.
        Raises what is wrong with this session alone: InputError for mel that does not fit, EngineError for a result
        that is broken.
        """
        job = _Job(session, clock, mel, last, began)
        self._jobs.append(job)
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())
        try:
            while True:
                result = await job.outbox.get()
                if isinstance(result, Exception):
                    raise result
                yield result
                if result.complete:
                    return
        finally:
            if job in self._jobs:
                self._jobs.remove(job)

    def cpu_clock(self) -> CpuClock | None:
        """CPU seconds that the step thread has computed so far."""
        return cpu_of_thread(self._thread)

    @property
    def running(self) -> int:
        return len(self._jobs)

    @property
    def owed_frames(self) -> int:
        """Mel frames of pushes that are not done."""
        return sum(job.mel.shape[1] for job in self._jobs)

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while self._jobs:
            jobs = sorted(self._jobs, key=lambda job: job.clock.due)
            step = loop.run_in_executor(self._thread, self._step, jobs)
            outcome = (await asyncio.gather(step, return_exceptions=True))[0]
            if isinstance(outcome, BaseException):
                # A fault of the loop itself must not leave anybody waiting for ever.
                fault = EngineError(f"a step of the vocoder failed: {outcome}")
                outcome = [(job, fault) for job in jobs]
            for job, result in outcome:
                if job in self._jobs:
                    job.outbox.put_nowait(result)
                    if isinstance(result, Exception) or result.complete:
                        self._jobs.remove(job)

    def _step(self, jobs: Sequence[_Job]) -> list[_Result]:
        """In the step thread: one call for the first job that has a window and for others like it."""
        results: list[_Result] = []
        chosen: list[_Job] = []
        shape: WindowShape | None = None
        for job in jobs:
            try:
                if not job.fed:
                    job.session.feed(job.mel, last=job.last)
                    job.fed = True
                wanted = job.session.shape
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised to whoever pushed
                results.append((job, error))
                continue
            if wanted is None:
                results.append((job, Piece(torch.zeros(0), complete=True)))
            elif len(chosen) < self._runner.max_batch and shape in (None, wanted):
                chosen.append(job)
                shape = wanted
        return results + self._vocode(chosen)

    def _vocode(self, jobs: Sequence[_Job]) -> list[_Result]:
        for job in jobs:
            job.began()
        windows = [window for job in jobs if (window := job.session.window()) is not None]
        if not windows:
            return []
        results: list[_Result] = []
        for job, outcome in zip(jobs, self._run(windows), strict=True):
            try:
                if isinstance(outcome, Exception):
                    raise EngineError(f"a window of the vocoder failed: {outcome}") from outcome
                samples = job.session.emit(outcome)
                results.append((job, Piece(samples, complete=job.session.shape is None)))
            except EngineError as error:
                results.append((job, error))
        return results

    def _run(self, windows: Sequence[PreparedWindow]) -> Sequence[VocodedWindow | Exception]:
        """Each window's result or error; when the call for all fails, each is tried alone, so that one fails alone."""
        began = time.perf_counter()
        try:
            results = self._runner.run(windows)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must reach only whom it belongs to
            if len(windows) == 1:
                return [error]
            return [self._run([window])[0] for window in windows]
        self._on_step(len(windows), time.perf_counter() - began)
        return results
