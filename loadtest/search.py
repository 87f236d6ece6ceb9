"""The highest rate of arrivals at which the service still keeps its promise.

Doubles the rate until the promise breaks, then halves the gap (in ratio) until the two rates are close, and confirms
the one that held with other arrivals. Knows neither services nor requests: it is given a way to try a rate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from loadtest.statistics import Interval

Try = Callable[[float, int], Awaitable["Trial"]]
"""(rate, number of the attempt, which seeds its arrivals) -> what came of it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One rate that was tried. goodput: None when nothing could be measured."""

    rate: float
    requests: int
    goodput: Interval | None

    def kept(self, wanted: float) -> bool:
        return self.goodput is not None and self.goodput.value >= wanted


@dataclass(frozen=True, slots=True)
class Found:
    """rate: the highest that was tried and confirmed, None if even the lowest failed. broken_at: the lowest known to
    fail above it, None if none did."""

    rate: float | None
    broken_at: float | None
    trials: tuple[Trial, ...]


async def highest_rate(attempt: Try, *, low: float, high: float, wanted: float, closeness: float = 1.15) -> Found:
    """low, high: rates to search between; closeness: ratio of failing to passing rate at which it is close enough.

    Raises ValueError for bounds that are none.
    """
    if not 0 < low <= high:
        raise ValueError(f"need 0 < low <= high, got {low} and {high}")
    trials: list[Trial] = []

    async def keeps(rate: float) -> bool:
        trial = await attempt(rate, len(trials))
        trials.append(trial)
        return trial.kept(wanted)

    good: float | None = None
    bad: float | None = None
    rate = low
    while True:
        if await keeps(rate):
            good = rate
            if bad is None:
                if rate >= high:
                    return Found(good, None, tuple(trials))
                rate = min(2 * rate, high)
                continue
        else:
            bad = rate
        if good is None:
            return Found(None, bad, tuple(trials))
        if bad is not None and bad / good <= closeness:
            # The rate held once; chance may have been kind, so it must hold with other arrivals too.
            if sum(trial.rate == good and trial.kept(wanted) for trial in trials) >= 2 or await keeps(good):
                return Found(good, bad, tuple(trials))
            bad, good = good, max((t.rate for t in trials if t.rate < good and t.kept(wanted)), default=None)
            if good is None:
                return Found(None, bad, tuple(trials))
        assert bad is not None
        rate = (good * bad) ** 0.5
