"""Percentiles and intervals: true on known distributions, and honest about what a few values can tell."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.statistics import bootstrap, difference, percentiles, share, share_difference


def values(count: int, seed: int, scale: float = 1.0) -> list[float]:
    return list(np.random.default_rng(seed).exponential(scale, count))


def test_percentiles_are_those_of_the_values() -> None:
    found = percentiles([float(n) for n in range(1, 101)])
    assert found is not None
    assert (found.p50.value, found.p90.value, found.largest) == pytest.approx((50.5, 90.1, 100))
    assert found.count == 100
    assert found.unsure == ("p99",)


def test_of_nothing_there_are_no_percentiles() -> None:
    assert percentiles([]) is None
    with pytest.raises(ValueError, match="at least one"):
        bootstrap([], lambda drawn: drawn.mean(axis=1))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = np.log(2)
    hits = 0
    for seed in range(60):
        found = percentiles(values(80, seed))
        assert found is not None
        hits += found.p50.low <= truth <= found.p50.high
    assert hits >= 50


def test_neighbours_that_share_a_queue_widen_the_interval() -> None:
    """The same values in an order in which neighbours are alike tell less than in random order."""
    shuffled = values(400, 3)
    grouped = sorted(shuffled)
    widths = []
    for ordered in (shuffled, grouped):
        interval = bootstrap(ordered, lambda drawn: drawn.mean(axis=1))
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.5 * widths[0]


def test_the_same_values_give_the_same_interval() -> None:
    assert percentiles(values(50, 1)) == percentiles(values(50, 1))


def test_many_values_are_drawn_in_bounded_memory() -> None:
    found = percentiles([0.5] * 200_000)
    assert found is not None
    assert (found.p99.low, found.p99.high) == (0.5, 0.5)


def test_a_difference_is_seen_when_there_is_one_and_not_otherwise() -> None:
    same = difference(values(200, 1), values(200, 2), 0.5)
    slower = difference(values(200, 1), values(200, 2, scale=2.0), 0.5)
    assert same.low < 0 < same.high
    assert slower.low > 0
    assert slower.value == pytest.approx(np.log(2), abs=0.25)


@pytest.mark.parametrize(
    ("good", "count", "low", "high"), [(0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (95, 100, 0.888, 0.978)]
)
def test_shares_by_wilson(good: int, count: int, low: float, high: float) -> None:
    found = share(good, count)
    assert found is not None
    assert found.value == good / count
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.001)


def test_a_share_of_nothing_is_unknown() -> None:
    assert share(0, 0) is None


def test_difference_of_shares() -> None:
    """Newcombe's own example (1998, method 10): 56/70 and 48/80."""
    before, after = share(48, 80), share(56, 70)
    assert before and after
    found = share_difference(before, after)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=0.0005)
