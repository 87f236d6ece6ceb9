"""Drives the torch engine from an event loop: steps in a thread, tokens to one queue per sequence.

The engine is touched by the step thread only. Arrivals and departures are noted here and applied before the next
step, so a new utterance joins the running batch at its next token.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import TokenEvent, TokenRequest
from deployments.messages import Finish
from deployments.speech_lm.engine import TokenBatch

Outbox = asyncio.Queue[TokenBatch | Exception]


class TorchTokenEngine:
    """Continuous batching without vLLM; see `TokenEngine`."""

    name = "torch"

    def __init__(self, engine: TorchEngine, max_sequences: int) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lm")
        self._slots = asyncio.Semaphore(max_sequences)
        self._arrivals: list[tuple[TokenRequest, Outbox]] = []
        self._departed: set[Outbox] = set()
        self._outboxes: dict[int, Outbox] = {}
        self._driver: asyncio.Task[None] | None = None

    async def generate(self, request: TokenRequest) -> AsyncGenerator[TokenBatch, None]:
        async with self._slots:
            outbox: Outbox = asyncio.Queue()
            self._arrivals.append((request, outbox))
            self._wake()
            ended = False
            try:
                while not ended:
                    batch = await outbox.get()
                    if isinstance(batch, Exception):
                        ended = True
                        raise batch
                    ended = batch.finish is not None
                    yield batch
            finally:
                if not ended:
                    self._departed.add(outbox)
                    self._wake()

    async def check_health(self) -> None:
        driver = self._driver
        if driver is not None and driver.done() and driver.exception() is not None:
            raise EngineError(f"the step loop has died: {driver.exception()}")

    def _wake(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._drive())

    async def _drive(self) -> None:
        loop = asyncio.get_running_loop()
        while self._arrivals or self._departed or self._outboxes:
            arrivals, self._arrivals = self._arrivals, []
            departed, self._departed = self._departed, set()
            for outbox, batch in await loop.run_in_executor(self._thread, self._step, arrivals, departed):
                outbox.put_nowait(batch)

    def _step(
        self, arrivals: list[tuple[TokenRequest, Outbox]], departed: set[Outbox]
    ) -> list[tuple[Outbox, TokenBatch | Exception]]:
        """In the step thread: apply what changed, run one forward pass, say what came of it."""
        results: list[tuple[Outbox, TokenBatch | Exception]] = []
        for request, outbox in arrivals:
            if outbox in departed:
                continue
            try:
                self._outboxes[self._engine.add(request)] = outbox
            except ValueError as error:
                results.append((outbox, error))
        for sequence in [sequence for sequence, outbox in self._outboxes.items() if outbox in departed]:
            self._engine.cancel(sequence)
            del self._outboxes[sequence]
        if self._engine.pending:
            results.extend(self._delivery(event) for event in self._engine.step())
        return results

    def _delivery(self, event: TokenEvent) -> tuple[Outbox, TokenBatch | Exception]:
        outbox = self._outboxes.pop(event.sequence) if event.finished else self._outboxes[event.sequence]
        if event.error is not None:
            return outbox, event.error
        return outbox, TokenBatch(event.tokens, Finish(event.reason) if event.reason else None)
