"""What sets voices apart, as a few numbers: pitch and its spread, and the three lowest formants. Knows no models."""

from __future__ import annotations

import numpy as np

from cosyvoice_core.audio.resample import resample
from tools.demo_voice.data.corpus import FloatArray
from tools.demo_voice.data.pitch import pitch_of

NAMES = ("log pitch", "spread of log pitch", "log F1", "log F2", "log F3")
TYPICAL = np.array([np.log(130.0), 0.15, np.log(520.0), np.log(1500.0), np.log(2550.0)], np.float32)
"""What unvoiced audio, which has none of them, is said to have."""
SCALE = np.array([0.3, 0.08, 0.12, 0.10, 0.08], np.float32)
"""A usual difference between two voices, in each of them."""

_RATE, _ORDER = 10000, 12
_FRAME, _HOP = 300, 200
_LOWEST_HZ, _HIGHEST_HZ, _WIDEST_HZ = 150.0, 4500.0, 700.0
_PREEMPHASIS = 0.97


def voice_statistics(wave24k: FloatArray, pitch: FloatArray | None = None) -> FloatArray:
    """(N,) at 24 kHz to (5,), see NAMES; medians over voiced frames. pitch: as `pitch_of` finds it, to save time."""
    pitch = pitch_of(wave24k) if pitch is None else pitch
    voiced = pitch[pitch > 0]
    formants = _formants(wave24k, pitch)
    if len(voiced) < 5 or len(formants) < 5:
        return TYPICAL.copy()
    height = np.log(voiced)
    found = [np.median(height), np.subtract(*np.quantile(height, [0.75, 0.25])), *np.median(np.log(formants), axis=0)]
    return np.array(found, np.float32)


def distance(one: FloatArray, other: FloatArray) -> float:
    """Between two voices' statistics, in usual differences."""
    return float(np.linalg.norm((one - other) / SCALE))


def _formants(wave24k: FloatArray, pitch: FloatArray) -> FloatArray:
    """(frames, 3) Hz of the voiced frames in which three resonances are found, by linear prediction."""
    wave = resample(wave24k, 24000, _RATE)
    wave = np.append(wave[:1], wave[1:] - np.float32(_PREEMPHASIS) * wave[:-1])
    frames = [
        wave[start : start + _FRAME]
        for frame, hertz in enumerate(pitch)
        if hertz > 0 and (start := frame * _HOP + _HOP // 2 - _FRAME // 2) >= 0 and start + _FRAME <= len(wave)
    ]
    if not frames:
        return np.zeros((0, 3), np.float32)
    windowed = np.stack(frames) * np.hamming(_FRAME)
    power = np.abs(np.fft.rfft(windowed, 2 * _FRAME)) ** 2
    correlation = np.fft.irfft(power)[:, : _ORDER + 1]
    correlation[:, 0] = correlation[:, 0] * 1.0001 + 1e-9
    lags = np.abs(np.subtract.outer(np.arange(_ORDER), np.arange(_ORDER)))
    coefficients = np.linalg.solve(correlation[:, lags], correlation[:, 1:, None])[..., 0]
    companion = np.zeros((len(frames), _ORDER, _ORDER))
    companion[:, 0] = coefficients
    companion[:, np.arange(1, _ORDER), np.arange(_ORDER - 1)] = 1.0
    roots = np.linalg.eigvals(companion)
    hertz = np.angle(roots) * _RATE / (2 * np.pi)
    width = -np.log(np.maximum(np.abs(roots), 1e-6)) * _RATE / np.pi
    kept = (hertz > _LOWEST_HZ) & (hertz < _HIGHEST_HZ) & (width < _WIDEST_HZ)
    found = np.sort(np.where(kept, hertz, np.inf), axis=1)[:, :3]
    return np.asarray(found[np.isfinite(found).all(1)], np.float32)
