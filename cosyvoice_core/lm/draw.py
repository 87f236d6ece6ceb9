"""Draws that are a pure function of (seed, position, id): no generator state, nothing to save for a replay.

On any device and without waiting for it, so that every engine draws the same ids. Source: docs/model.md,
"Sampling (RAS)".
"""

from __future__ import annotations

import torch
from torch import Tensor


def seed_word(seed: int) -> int:
    """The 64 bits of `seed`, taken modulo 2**64, as the signed number that an int64 tensor holds."""
    word = seed & ((1 << 64) - 1)
    return word - (1 << 64) if word >> 63 else word


_GAMMA = seed_word(0x9E3779B97F4A7C15)
_MIX = ((30, seed_word(0xBF58476D1CE4E5B9)), (27, seed_word(0x94D049BB133111EB)))


def _shifted(words: Tensor, count: int) -> Tensor:
    """Right shift that fills with zeros; int64's own fills with the sign."""
    return (words >> count) & ((1 << (64 - count)) - 1)


def _mixed(words: Tensor) -> Tensor:
    """SplitMix64's finaliser of 64-bit words; int64 products wrap as unsigned ones do."""
    for shift, factor in _MIX:
        words = (words ^ _shifted(words, shift)) * factor
    return words ^ _shifted(words, 31)


def uniforms(ids: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Numbers `(B, K)` in (0, 1], one per id: entry `id` of the SplitMix64 stream that (seed, position) starts.

    ids: `(B, K)`, or `(K,)` for all rows; seeds: `(B,)`, made by `seed_word`; positions: `(B,)`, index of the draw
    within the utterance. All int64; the numbers are float64 with 53 random bits.
    """
    starts = _mixed(_mixed(seeds + _GAMMA) + (positions + 1) * _GAMMA)
    words = _mixed(starts[:, None] + (ids + 1) * _GAMMA)
    return (_shifted(words, 11).double() + 0.5) * 2.0**-53


def draw(ids: Tensor, probabilities: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """One id `(B,)` per row, each with its (not necessarily normalised) probability `(B, K)`, one of them positive.

    ids, seeds, positions: as in `uniforms`. Each id runs for an exponential time at the rate of its probability and
    the first one wins. Two sets of probabilities that differ by rounding then give different ids with a chance of
    about that difference; by the inverse of the cumulative sum the chance would be that difference times the
    number of ids.
    """
    times = -torch.log(uniforms(ids, seeds, positions)) / probabilities
    winners = torch.where(probabilities > 0.0, times, torch.inf).argmin(1, keepdim=True)
    return ids.expand_as(probabilities).gather(1, winners)[:, 0]
