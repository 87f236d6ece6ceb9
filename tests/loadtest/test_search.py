"""The search for the highest rate, on services whose limit is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loadtest.search import Found, Trial, highest_rate
from loadtest.statistics import Interval


async def search(goodput: Callable[[float, int], float | None], low: float = 0.25, high: float = 64.0) -> Found:
    async def attempt(rate: float, number: int) -> Trial:
        value = goodput(rate, number)
        return Trial(rate, 100, None if value is None else Interval(value, value, value))

    return await highest_rate(attempt, low=low, high=high, wanted=0.99)


@pytest.mark.parametrize("limit", [0.3, 1.0, 5.7, 63.0])
async def test_the_limit_is_found_from_below(limit: float) -> None:
    found = await search(lambda rate, _number: 1.0 if rate <= limit else 0.5)
    assert found.rate is not None
    assert found.broken_at is not None
    assert found.rate <= limit < found.broken_at
    assert found.broken_at / found.rate <= 1.15
    assert len(found.trials) < 16


async def test_a_rate_that_held_by_chance_is_not_believed() -> None:
    """Rates above 2 hold at the first attempt and fail at the second."""
    tried: set[float] = set()

    def moody(rate: float, _number: int) -> float:
        lucky = rate not in tried and rate <= 4.2
        tried.add(rate)
        return 1.0 if rate <= 2 or lucky else 0.5

    found = await search(moody)
    assert found.rate is not None
    assert found.rate <= 2


async def test_a_service_that_keeps_nothing_and_one_that_keeps_all() -> None:
    nothing = await search(lambda _rate, _number: 0.2)
    assert (nothing.rate, nothing.broken_at, len(nothing.trials)) == (None, 0.25, 1)
    everything = await search(lambda _rate, _number: 1.0)
    assert (everything.rate, everything.broken_at) == (64.0, None)


async def test_a_rate_at_which_nothing_was_measured_is_not_kept() -> None:
    assert (await search(lambda _rate, _number: None)).rate is None


async def test_attempts_have_numbers_of_their_own() -> None:
    numbers: list[int] = []
    await search(lambda rate, number: numbers.append(number) or (1.0 if rate < 3 else 0.0))
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (2, 1)])
async def test_bounds_that_are_none(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="low <= high"):
        await search(lambda _rate, _number: 1.0, low, high)
