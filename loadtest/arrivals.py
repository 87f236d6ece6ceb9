"""When requests arrive in an open loop: offsets in seconds from the start, in order, decided before the run.

Real listeners do not wait for each other, so arrivals never depend on answers. Knows nothing of requests.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from loadtest.errors import ScenarioError

Offsets = tuple[float, ...]


def poisson(rate: float, duration_s: float, seed: int) -> Offsets:
    """Independent arrivals, `rate` per second on average: exponential times between them."""
    return tuple(_poisson_times(np.random.default_rng(seed), rate, duration_s))


def bursts(rate: float, size: int, spread_s: float, duration_s: float, seed: int) -> Offsets:
    """The same average rate in bursts of `size` that come by a Poisson process, each spread evenly over `spread_s`."""
    chance = np.random.default_rng(seed)
    starts = _poisson_times(chance, rate / size, duration_s)
    offsets = np.sort(np.concatenate([start + chance.uniform(0, spread_s, size) for start in starts] or [np.zeros(0)]))
    return tuple(float(offset) for offset in offsets if offset < duration_s)


def trace(file: Path, speed: float) -> Offsets:
    """Recorded arrivals: one time in seconds per line (any origin; `#` begins a comment), replayed `speed` times
    as fast. Raises ScenarioError with the line that is wrong."""
    times: list[float] = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ScenarioError(f"{file}: cannot read the trace ({error.strerror})") from None
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            time = float(entry)
        except ValueError:
            time = math.nan
        if not math.isfinite(time):
            raise ScenarioError(f"{file}, line {number}: {entry[:40]!r} is not a time in seconds")
        times.append(time)
    if not times:
        raise ScenarioError(f"{file}: holds no arrivals; wanted one time in seconds per line")
    first = min(times)
    return tuple(sorted((time - first) / speed for time in times))


def _poisson_times(chance: np.random.Generator, rate: float, duration_s: float) -> list[float]:
    times: list[float] = []
    now = float(chance.exponential(1 / rate))
    while now < duration_s:
        times.append(now)
        now += float(chance.exponential(1 / rate))
    return times
