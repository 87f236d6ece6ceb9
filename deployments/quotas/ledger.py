"""The count of what callers use: answers at once, and buckets of requests and characters that fill with time.

A bucket holds what is allowed in a minute, and is full at first. A text that is longer than that needs a full bucket
and leaves it in debt, as do texts whose length is known only at their end: the average over minutes is kept, and
nobody's text is cut or never let in. Knows neither Ray nor what the callers do.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from deployments.ingress.callers import Caller

Limit = Literal["streams", "requests", "characters"]

_STREAM_RETRY_S = 1.0
"""Nobody knows when an answer ends."""


class QuotaError(RuntimeError):
    """A key's quota is used up: which one, how much is allowed, and after how long it is worth trying again."""

    def __init__(self, limit: Limit, allowed: int, retry_after_s: float) -> None:
        self.limit = limit
        self.allowed = allowed
        self.retry_after_s = retry_after_s
        what = f"{allowed} streams at once" if limit == "streams" else f"{allowed} {limit} per minute"
        super().__init__(f"the quota of this key is used up: {limit} (allowed: {what})")

    def __reduce__(self) -> tuple[type[QuotaError], tuple[Limit, int, float]]:
        return type(self), (self.limit, self.allowed, self.retry_after_s)


class _Bucket:
    def __init__(self, per_minute: int, now: float) -> None:
        self._most = self._level = float(per_minute)
        self._at = now

    def fill(self, per_minute: int, now: float) -> None:
        """Up to now; what is allowed may be another than before."""
        self._level = min(self._level + (now - self._at) * per_minute / 60, per_minute)
        self._most, self._at = float(per_minute), now

    def wait_s(self, amount: float) -> float:
        return max(min(amount, self._most) - self._level, 0.0) * 60 / self._most

    def take(self, amount: float) -> None:
        self._level = min(self._level - amount, self._most)


@dataclass(slots=True)
class _Account:
    # A lease that is renewed is held twice for a moment, and counts once.
    leases: Counter[str] = field(default_factory=Counter)
    buckets: dict[Limit, _Bucket] = field(default_factory=dict)


class QuotaLedger:
    """Accounts of callers by name; there are as many as there are keys with quotas."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def enter(self, caller: Caller, lease: str, characters: int, *, known: bool = False) -> None:
        """Count one more answer, to be left as often as it was entered.

        known: it is under way already, so it costs nothing more and is not refused. Raises QuotaError, and then counts
        nothing.
        """
        account = self._account(caller)
        if not known:
            if caller.max_streams is not None and len(account.leases) >= caller.max_streams:
                raise QuotaError("streams", caller.max_streams, _STREAM_RETRY_S)
            # A text of unknown length needs at least something to be left.
            costs: dict[Limit, int] = {"requests": 1, "characters": max(characters, 1)}
            for limit, bucket in account.buckets.items():
                if wait_s := bucket.wait_s(costs[limit]):
                    raise QuotaError(limit, _per_minute(caller)[limit], wait_s)
            self.spend(caller, 1, characters)
        account.leases[lease] += 1

    def leave(self, caller: Caller, lease: str) -> None:
        leases = self._account(caller).leases
        leases[lease] -= 1
        if leases[lease] <= 0:
            del leases[lease]

    def spend(self, caller: Caller, requests: int, characters: int) -> None:
        """Take from the buckets, also what is not there; negative amounts give back."""
        buckets = self._account(caller).buckets
        amounts: dict[Limit, int] = {"requests": requests, "characters": characters}
        for limit, bucket in buckets.items():
            bucket.take(amounts[limit])

    def streams(self, caller: Caller) -> int:
        """Answers under way."""
        return len(self._account(caller).leases)

    def _account(self, caller: Caller) -> _Account:
        account = self._accounts.setdefault(caller.name, _Account())
        now, allowed = self._clock(), _per_minute(caller)
        for gone in account.buckets.keys() - allowed.keys():
            del account.buckets[gone]
        for limit, per_minute in allowed.items():
            account.buckets.setdefault(limit, _Bucket(per_minute, now)).fill(per_minute, now)
        return account


def _per_minute(caller: Caller) -> dict[Limit, int]:
    allowed: dict[Limit, int | None] = {
        "requests": caller.requests_per_minute,
        "characters": caller.characters_per_minute,
    }
    return {limit: per_minute for limit, per_minute in allowed.items() if per_minute is not None}
