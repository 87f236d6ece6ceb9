"""Pitch of speech frame by frame: correlation of a window with itself a period later, then the smoothest path.

Source of the method: normalised cross-correlation with dynamic programming (Talkin 1995, "RAPT"), without its details.
Knows no models.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float32]

LOWEST_HZ, HIGHEST_HZ = 60.0, 420.0
_RATE = 8000
_HOP, _WINDOW = 160, 320
_DECIMATION = 3
_SHORTEST, _LONGEST = int(_RATE / HIGHEST_HZ), int(_RATE / LOWEST_HZ)
_UNVOICED_COST = 0.55
_ONSET_COST = 0.2
_OCTAVE_COST = 0.6
_LAG_COST = 0.12
"""Longer lags must correlate better: a period's double correlates as well as the period."""
_QUIET = 3e-3


def pitch_of(wave24k: FloatArray) -> FloatArray:
    """(N,) at 24 kHz to (N // 480,) Hz at 50 frames/s, 0 where unvoiced; frame t is centred on sample 480 t + 240."""
    frames = len(wave24k) // 480
    if not frames:
        return np.zeros(0, np.float32)
    whole = wave24k[: frames * 480].reshape(-1, _DECIMATION).mean(1)
    correlation, loudness = _correlations(whole, frames)
    lags = np.arange(_SHORTEST, _LONGEST + 1)
    cost: FloatArray = (1.0 - correlation + _LAG_COST * lags / _LONGEST).astype(np.float32)
    cost[loudness < max(_QUIET, 0.03 * float(loudness.max()))] = 2.0
    path = _cheapest_path(cost, lags)
    pitch = np.zeros(frames, np.float32)
    voiced = path >= 0
    pitch[voiced] = _RATE / _refined(correlation[voiced], path[voiced])
    return pitch


def _correlations(wave: FloatArray, frames: int) -> tuple[FloatArray, FloatArray]:
    """(frames, lags) in -1..1 and the root mean square (frames,) of each window."""
    reach = _WINDOW + _LONGEST
    # The two windows together are centred on the frame, for the longest lag.
    padded = np.pad(wave, (reach // 2 - _HOP // 2, reach))
    pieces = torch.from_numpy(padded).unfold(0, reach, _HOP)[:frames]
    first = pieces[:, :_WINDOW]
    later = pieces.unfold(1, _WINDOW, 1)[:, _SHORTEST:]
    power = first.square().sum(1)
    product = torch.einsum("tw,tlw->tl", first, later)
    correlation = product / ((power[:, None] * later.square().sum(2)).sqrt() + 1e-8)
    return correlation.numpy(), (power / _WINDOW).sqrt().numpy()


def _cheapest_path(cost: FloatArray, lags: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(frames,) index of the lag of each frame, -1 where unvoiced is cheapest."""
    frames, count = cost.shape
    steps = _OCTAVE_COST * np.abs(np.log2(lags[:, None] / lags[None, :]))
    total, unvoiced = cost[0].copy(), _UNVOICED_COST
    came = np.zeros((frames, count + 1), np.int64)
    for frame in range(1, frames):
        ways = total[None, :] + steps
        best = ways.argmin(1)
        stay = ways[np.arange(count), best]
        begin = unvoiced + _ONSET_COST
        came[frame, :count] = np.where(stay <= begin, best, count)
        leave = int(total.argmin())
        came[frame, count] = count if unvoiced <= total[leave] + _ONSET_COST else leave
        silent = min(unvoiced, float(total[leave]) + _ONSET_COST) + _UNVOICED_COST
        total, unvoiced = np.minimum(stay, begin) + cost[frame], silent
    state = count if unvoiced <= total.min() else int(total.argmin())
    path = np.empty(frames, np.int64)
    for frame in range(frames - 1, -1, -1):
        path[frame] = -1 if state == count else state
        state = int(came[frame, state])
    return path


def _refined(correlation: FloatArray, index: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Lags at the top of a parabola through three neighbours."""
    inner = np.clip(index, 1, correlation.shape[1] - 2)
    rows = np.arange(len(index))
    left, middle, right = (correlation[rows, inner + offset].astype(np.float64) for offset in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(np.abs(bend) > 1e-6, 0.5 * (left - right) / np.where(bend == 0, 1, bend), 0.0)
    return np.asarray(_SHORTEST + inner + np.clip(shift, -1.0, 1.0), np.float64)
