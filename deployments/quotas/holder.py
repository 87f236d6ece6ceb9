"""How an ingress replica asks for a quota and holds it while an answer is made.

Only callers with quotas cost a question. When `Quotas` does not answer, the replica counts for itself, from what it has
let in so far: everybody with a key goes on being served, and gets at most his quota from each ingress replica.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ray.serve.handle import DeploymentHandle

from deployments.ingress.callers import Caller
from deployments.mailbox import OverloadedError
from deployments.quotas.deployment import Verdict
from deployments.quotas.ledger import QuotaError, QuotaLedger

logger = logging.getLogger("ray.serve")

_ASK_AGAIN_S = 5.0


class Spending:
    """What an answer turns out to use beyond what was known at its start."""

    def __init__(self) -> None:
        self.characters = 0


class QuotaHolder:
    """The quotas of one ingress replica's callers; without a handle to `Quotas` it counts alone."""

    def __init__(
        self, handle: DeploymentHandle | None = None, timeout_s: float = 2.0, *, ask_again_s: float = _ASK_AGAIN_S
    ) -> None:
        """ask_again_s: after no answer came within timeout_s; nobody waits for one meanwhile."""
        self._ask_again_s = ask_again_s
        self._handle = handle
        self._timeout_s = timeout_s
        self._own = QuotaLedger()
        self._away_until = 0.0
        self._notes: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def stream(self, caller: Caller, characters: int) -> AsyncIterator[Spending]:
        """Enter it for as long as an answer is made; what is refused for lack of room costs nothing.

        characters: of its text, as far as known. Raises QuotaError.
        """
        spending = Spending()
        if not caller.limited:
            yield spending
            return
        async with self._lease(caller, characters):
            try:
                yield spending
            except OverloadedError:
                self._spend(caller, -1, -characters)
                raise
            finally:
                if spending.characters:
                    self._spend(caller, 0, spending.characters)

    @asynccontextmanager
    async def _lease(self, caller: Caller, characters: int) -> AsyncIterator[None]:
        lease = uuid.uuid4().hex
        asked: asyncio.Future[Verdict | TimeoutError] = asyncio.get_running_loop().create_future()
        holding: asyncio.Task[None] | None = None
        if self._handle is None:
            asked.set_result(TimeoutError())
        else:
            holding = asyncio.create_task(self._hold(caller, lease, characters, asked))
        try:
            verdict = await asked
            if isinstance(verdict, QuotaError):
                raise verdict
            self._own.enter(caller, lease, characters, known=verdict is None)
            if verdict is None:
                self._own.spend(caller, 1, characters)
            try:
                yield
            finally:
                self._own.leave(caller, lease)
        finally:
            if holding is not None:
                holding.cancel()

    async def _hold(
        self, caller: Caller, lease: str, characters: int, asked: asyncio.Future[Verdict | TimeoutError]
    ) -> None:
        """Hold a lease until cancelled, over renewals and losses of `Quotas`; answers `asked` once."""
        held: Any = None
        try:
            while True:
                try:
                    following, verdict = await self._ask(caller, lease, characters, known=asked.done())
                except Exception as error:  # noqa: BLE001 - whatever keeps it from answering, callers are served
                    self._miss(error)
                    if not asked.done():
                        asked.set_result(TimeoutError())
                    await asyncio.sleep(self._ask_again_s)
                    continue
                if held is not None:
                    held.cancel()
                held = following
                if not asked.done():
                    asked.set_result(verdict)
                if verdict is not None:
                    return
                try:
                    await anext(held)
                except Exception as error:  # noqa: BLE001 - the same
                    self._miss(error)
        finally:
            if held is not None:
                held.cancel()

    async def _ask(self, caller: Caller, lease: str, characters: int, *, known: bool) -> tuple[Any, Verdict]:
        if self._handle is None or time.monotonic() < self._away_until:
            raise TimeoutError
        # Replica to replica, so that it ends with this process.
        options = self._handle.options(method_name="lease", stream=True, _by_reference=False)
        opened: Any = options.remote(caller, lease, characters, known)
        try:
            async with asyncio.timeout(self._timeout_s):
                return opened, await anext(opened)
        except BaseException:
            opened.cancel()
            raise

    def _miss(self, error: Exception) -> None:
        if self._handle is None or time.monotonic() < self._away_until:
            return
        self._away_until = time.monotonic() + self._ask_again_s
        logger.warning("Quotas does not answer (%s); this replica counts for itself meanwhile", type(error).__name__)

    def _spend(self, caller: Caller, requests: int, characters: int) -> None:
        self._own.spend(caller, requests, characters)
        if self._handle is not None:
            note = asyncio.create_task(self._told(self._handle.spend.remote(caller, requests, characters)))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def _told(self, answer: Any) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await answer
        except Exception as error:  # noqa: BLE001 - as above
            self._miss(error)
