"""Figures of a sound by itself: loudness, clicks. Knows neither text nor voice."""

from __future__ import annotations

import numpy as np

from tools.demo_voice.data.corpus import FloatArray

_WINDOW = 480
_LEAST_JUMP, _TIMES_USUAL = 0.08, 12.0


def loudness_db(samples: FloatArray) -> float:
    """Root mean square of what is not silence, in dB of full scale; -100 for silence."""
    if not len(samples):
        return -100.0
    loud = samples[np.abs(samples) > 0.05 * np.abs(samples).max()]
    power = float(np.mean(loud.astype(np.float64) ** 2)) if len(loud) else 0.0
    return 10 * float(np.log10(max(power, 1e-10)))


def clicks(samples: FloatArray) -> int:
    """Steps from one sample to the next that are large, and many times as large as is usual in the 20 ms around."""
    if len(samples) < 2:
        return 0
    steps = np.abs(np.diff(samples.astype(np.float64)))
    padded = np.pad(steps, (0, -len(steps) % _WINDOW))
    usual = np.repeat(np.median(padded.reshape(-1, _WINDOW), axis=1), _WINDOW)[: len(steps)]
    return int(np.sum((steps > _LEAST_JUMP) & (steps > _TIMES_USUAL * usual)))
