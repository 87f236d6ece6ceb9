"""Draws that are a pure function of (seed, position, id): no generator state, nothing to save for a replay.

Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GAMMA = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_MASK = (1 << 64) - 1


def _mixed(value: int) -> int:
    """SplitMix64's finaliser of one 64-bit word."""
    for shift, factor in _MIX:
        value = ((value ^ (value >> shift)) * factor) & _MASK
    return value ^ (value >> 31)


def uniforms(seed: int, position: int, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Numbers in (0, 1), one per id: entry `id` of the SplitMix64 stream that (seed, position) starts.

    seed: any integer, taken modulo 2**64; position: index of the draw within the utterance.
    """
    start = _mixed((_mixed((seed + _GAMMA) & _MASK) + (position + 1) * _GAMMA) & _MASK)
    words = np.uint64(start) + (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(_GAMMA)
    for shift, factor in _MIX:
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    words ^= words >> np.uint64(31)
    scaled: npt.NDArray[np.float64] = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return scaled


def draw(ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], seed: int, position: int) -> int:
    """One of `ids`, each with its (not necessarily normalised) probability, at least one of them positive.

    Each id runs for an exponential time at the rate of its probability and the first one wins. Two sets of
    probabilities that differ by rounding then give different ids with a chance of about that difference; by the
    inverse of the cumulative sum the chance would be that difference times the number of ids.
    """
    possible = probabilities > 0.0
    ids, probabilities = ids[possible], probabilities[possible]
    times = -np.log(uniforms(seed, position, ids)) / probabilities
    return int(ids[times.argmin()])
