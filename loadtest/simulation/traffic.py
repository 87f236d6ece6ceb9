"""How many utterances are asked for in each second, and how long they are. Knows no cluster."""

from __future__ import annotations

import math

import numpy as np

from loadtest.simulation.plan import DAY_S, Traffic
from loadtest.simulation.stage_costs import FloatArray


def rates(traffic: Traffic, begin_s: int, end_s: int) -> FloatArray:
    """Utterances per second for each second from `begin_s` (negative: before midnight) to `end_s`. Bursts belong to
    every day from midnight on, not to what comes before."""
    at = np.arange(begin_s, end_s, dtype=np.float64)
    curve = np.array([*traffic.curve, traffic.curve[0]]) / max(traffic.curve)
    found: FloatArray = traffic.peak_per_s * np.interp(at % DAY_S, np.linspace(0, DAY_S, len(curve)), curve)
    for burst in traffic.bursts:
        since = at % DAY_S - burst.at_h * 3600
        found[(at >= 0) & (since >= 0) & (since < burst.lasts_s)] *= burst.factor
    return found


def lengths(traffic: Traffic, count: int, rng: np.random.Generator) -> FloatArray:
    """Audio seconds of so many utterances: log-normal around the mean, cut at both ends."""
    middle = math.log(traffic.mean_audio_s) - traffic.spread**2 / 2
    shortest = min(0.5, traffic.longest_audio_s)
    return np.clip(np.exp(rng.normal(middle, traffic.spread, count)), shortest, traffic.longest_audio_s)
