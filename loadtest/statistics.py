"""Percentiles and shares with the uncertainty of a short measurement. Knows no requests, only numbers in time order.

Requests that follow each other share a queue, so they are no independent draws: the bootstrap draws blocks of
neighbours (circular block bootstrap, Politis and Romano 1992), of about the cube root of the number of values.
Sources: Efron and Tibshirani 1993 for percentile intervals; Wilson 1927 for shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""(draws, values) -> (draws, ...)."""

QUANTILES = (0.5, 0.9, 0.95, 0.99)
CONFIDENCE = 0.95
_MOST_DRAWS, _FEWEST_DRAWS = 1000, 100
# Narrow tails need more draws.
_TAIL_DRAWS = 10_000
_VALUES = 20_000_000
_VALUES_AT_ONCE = 4_000_000
_SEED = 20_26


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and the range that holds it with 95 % confidence if no other is named, as far as this one measurement
    can tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of `count` values. The interval of a percentile that fewer than five values lie beyond says little, and the
    one named in `unsure` are such."""

    count: int
    mean: float
    p50: Interval
    p90: Interval
    p95: Interval
    p99: Interval
    largest: float
    unsure: tuple[str, ...] = ()


def percentiles(values: Sequence[float]) -> Percentiles | None:
    """Of values in time order; None without any."""
    if not values:
        return None
    array = np.asarray(values, np.float64)
    drawn = _redrawn(array, lambda many: np.quantile(many, QUANTILES, axis=1).T)
    exact = np.quantile(array, QUANTILES)
    found = {
        f"p{round(q * 100)}": _interval(float(value), draws)
        for q, value, draws in zip(QUANTILES, exact, drawn.T, strict=True)
    }
    unsure = tuple(f"p{round(q * 100)}" for q in QUANTILES if len(values) * (1 - q) < 5)
    return Percentiles(len(values), float(np.mean(values)), **found, largest=float(max(values)), unsure=unsure)


def bootstrap(values: Sequence[float], statistic: Statistic) -> Interval:
    """A statistic of values in time order. Raises ValueError without any."""
    if not values:
        raise ValueError("a statistic needs at least one value")
    array = np.asarray(values, np.float64)
    return _interval(float(statistic(array[None])[0]), _redrawn(array, statistic))


def difference(
    before: Sequence[float], after: Sequence[float], quantile: float, confidence: float = CONFIDENCE
) -> Interval:
    """How much larger a quantile is in `after`, in the values' unit; both sides are drawn anew."""

    def statistic(drawn: FloatArray) -> FloatArray:
        found: FloatArray = np.quantile(drawn, quantile, axis=1)
        return found

    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    one, other = (_redrawn(first, statistic, _SEED, _TAIL_DRAWS), _redrawn(second, statistic, _SEED + 1, _TAIL_DRAWS))
    count = min(len(one), len(other))
    draws = other[:count] - one[:count]
    return _interval(float(statistic(second[None])[0] - statistic(first[None])[0]), draws, confidence)


def share(good: int, count: int, confidence: float = CONFIDENCE) -> Interval | None:
    """A share of `count` by Wilson's interval, which says something even when all or none are good; None of none."""
    if not count:
        return None
    value, z = good / count, NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (value + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(value * (1 - value) / count + z**2 / (4 * count**2))
    return Interval(value, max(middle - half, 0.0), min(middle + half, 1.0))


def share_difference(before: Interval, after: Interval) -> Interval:
    """How much larger a share has become, by Newcombe's hybrid of two Wilson intervals (1998)."""
    value = after.value - before.value
    low = value - math.hypot(after.value - after.low, before.high - before.value)
    high = value + math.hypot(after.high - after.value, before.value - before.low)
    return Interval(value, low, high)


def _redrawn(values: FloatArray, statistic: Statistic, seed: int = _SEED, most_draws: int = _MOST_DRAWS) -> FloatArray:
    """The statistic of many draws of blocks of neighbours; the same draws for the same seed."""
    count = len(values)
    block = max(1, round(count ** (1 / 3)))
    blocks = -(-count // block)
    chance = np.random.default_rng(seed)
    draws = min(max(_VALUES // count, _FEWEST_DRAWS), most_draws)
    at_once = max(1, min(draws, _VALUES_AT_ONCE // count))
    parts = []
    for done in range(0, draws, at_once):
        starts = chance.integers(count, size=(min(at_once, draws - done), blocks, 1))
        indices = ((starts + np.arange(block)) % count).reshape(len(starts), -1)[:, :count]
        parts.append(statistic(values[indices]))
    return np.concatenate(parts)


def _interval(value: float, draws: FloatArray, confidence: float = CONFIDENCE) -> Interval:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))
