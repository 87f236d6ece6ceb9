"""Drives the torch engine from an event loop: steps in a thread, tokens to one queue per sequence.

The engine is touched by the step thread only. Arrivals, text and departures are noted here and applied before the
next step, so a new utterance joins the running batch at its next token. While every sequence waits for text no step
is taken at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest, TokenEvent, TokenRequest
from deployments.messages import Finish
from deployments.speech_lm.engine import EngineDiedError, TokenBatch
from deployments.work import CpuClock, cpu_of_thread

Outbox = asyncio.Queue[TokenBatch | Exception]


@dataclass(slots=True)
class _Changes:
    """What has happened since the last step."""

    arrivals: list[tuple[TokenRequest | StreamRequest, Outbox]] = field(default_factory=list)
    texts: list[tuple[Outbox, tuple[int, ...], bool]] = field(default_factory=list)
    departed: set[Outbox] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.arrivals or self.texts or self.departed)


class TorchTokenEngine:
    """Continuous batching without vLLM; see `TokenEngine`."""

    name = "torch"

    def __init__(self, engine: TorchEngine, max_sequences: int) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lm")
        self._slots = asyncio.Semaphore(max_sequences)
        self._changes = _Changes()
        self._outboxes: dict[int, Outbox] = {}
        self._driver: asyncio.Task[None] | None = None

    async def generate(self, request: TokenRequest, lead_s: float = 0.0) -> AsyncGenerator[TokenBatch, None]:
        """As `TokenEngine` says, but places are given in order of arrival."""
        async with self._slots:
            outbox: Outbox = asyncio.Queue()
            ended = False
            try:
                self._changes.arrivals.append((request, outbox))
                self._wake()
                while not ended:
                    batch = await outbox.get()
                    ended = isinstance(batch, Exception) or batch.finish is not None
                    if isinstance(batch, Exception):
                        raise batch
                    yield batch
            finally:
                if not ended:
                    self._depart(outbox)

    async def generate_stream(
        self, request: StreamRequest, text: AsyncIterator[tuple[int, ...]]
    ) -> AsyncGenerator[TokenBatch, None]:
        async with self._slots:
            outbox: Outbox = asyncio.Queue()
            ended = False
            self._changes.arrivals.append((request, outbox))
            feeder = asyncio.create_task(self._feed(outbox, text))
            try:
                while not ended:
                    batch = await outbox.get()
                    if isinstance(batch, Exception):
                        raise batch
                    ended = batch.finish is not None
                    yield batch
            finally:
                feeder.cancel()
                # After an error too: if the text broke off, its sequence is running still.
                if not ended:
                    self._depart(outbox)
                await asyncio.gather(feeder, return_exceptions=True)

    async def _feed(self, outbox: Outbox, text: AsyncIterator[tuple[int, ...]]) -> None:
        try:
            async for ids in text:
                self._changes.texts.append((outbox, ids, False))
                self._wake()
            self._changes.texts.append((outbox, (), True))
            self._wake()
        except Exception as error:  # noqa: BLE001 - handed to whoever reads the tokens
            outbox.put_nowait(error)

    @property
    def held(self) -> int:
        return len(self._outboxes) + len(self._changes.arrivals)

    def cpu_clock(self) -> CpuClock | None:
        return cpu_of_thread(self._thread) if self._engine.body.device.type == "cpu" else None

    async def check_health(self) -> None:
        driver = self._driver
        if driver is not None and driver.done() and driver.exception() is not None:
            raise EngineDiedError(f"the step loop has died: {driver.exception()}")

    def _depart(self, outbox: Outbox) -> None:
        self._changes.departed.add(outbox)
        self._wake()

    def shutdown(self) -> None:
        self._thread.shutdown(wait=False)

    def _wake(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        ready = True
        while self._changes or ready:
            changes, self._changes = self._changes, _Changes()
            results, ready = await loop.run_in_executor(self._thread, self._step, changes)
            for outbox, batch in results:
                outbox.put_nowait(batch)

    def _step(self, changes: _Changes) -> tuple[list[tuple[Outbox, TokenBatch | Exception]], bool]:
        """In the step thread: apply what changed, run one forward pass, say what came of it and if more can come."""
        results: list[tuple[Outbox, TokenBatch | Exception]] = []
        for request, outbox in changes.arrivals:
            if outbox in changes.departed:
                continue
            try:
                self._outboxes[self._engine.add(request)] = outbox
            except ValueError as error:
                results.append((outbox, error))
        numbers = {outbox: number for number, outbox in self._outboxes.items()}
        for outbox in changes.departed & numbers.keys():
            self._drop(numbers.pop(outbox))
        for outbox, ids, end in changes.texts:
            if outbox not in numbers:
                continue
            try:
                self._engine.extend(numbers[outbox], ids, end)
            except ValueError as error:
                results.append((outbox, error))
                self._drop(numbers.pop(outbox))
        if self._engine.ready:
            results.extend(self._delivery(event) for event in self._engine.step())
        return results, self._engine.ready

    def _drop(self, number: int) -> None:
        self._engine.cancel(number)
        del self._outboxes[number]

    def _delivery(self, event: TokenEvent) -> tuple[Outbox, TokenBatch | Exception]:
        outbox = self._outboxes.pop(event.sequence) if event.finished else self._outboxes[event.sequence]
        if event.error is not None:
            return outbox, event.error
        return outbox, TokenBatch(event.tokens, Finish(event.reason) if event.reason else None, event.closed_block)
