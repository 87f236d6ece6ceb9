"""Quotas: the deployment, of one replica, that counts for all ingress replicas. Knows callers, not keys.

An answer under way is an open streaming call, a lease: it ends with the ingress replica that holds it. It also ends of
itself and must be renewed before, so that one whose end nobody sees (a node that is cut off) is freed as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from deployments.ingress.callers import Caller
from deployments.quotas.ledger import QuotaError, QuotaLedger

RENEW_AFTER_S = 20.0
_ENDS_AFTER_S = 20.0
"""After it was time to renew it."""

Verdict = QuotaError | None
"""Why an answer must not begin; None when it may."""


class Quotas:
    """Counts from full buckets when it starts; answers under way are told to it again by those who hold them."""

    def __init__(self) -> None:
        self._ledger = QuotaLedger()

    async def lease(self, caller: Caller, lease: str, characters: int, known: bool) -> AsyncIterator[Verdict]:
        """First the verdict; a second None when it is time to renew. Closing it ends the lease."""
        try:
            self._ledger.enter(caller, lease, characters, known=known)
        except QuotaError as error:
            yield error
            return
        try:
            yield None
            await asyncio.sleep(RENEW_AFTER_S)
            yield None
            await asyncio.sleep(_ENDS_AFTER_S)
        finally:
            self._ledger.leave(caller, lease)

    async def spend(self, caller: Caller, requests: int, characters: int) -> None:
        """What was used beyond what was said before; negative amounts give back."""
        self._ledger.spend(caller, requests, characters)

    async def streams(self, caller: Caller) -> int:
        """Answers of this caller under way."""
        return self._ledger.streams(caller)
