"""A resampled sine is the same sine at the new rate, for common and for odd rates."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_core.audio.resample import resample
from tests.audio.sounds import tone

RATES = [8000, 11025, 16000, 16001, 22050, 24000, 32000, 44100, 44101, 48000, 95999, 96000, 192000]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("new_rate", [16000, 24000])
def test_a_sine_keeps_its_pitch_phase_and_level(rate: int, new_rate: int) -> None:
    original = tone(0.6, rate, 440.0)
    actual = resample(original, rate, new_rate)
    expected = 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(len(actual)) / new_rate)
    assert actual.dtype == np.float32
    assert len(actual) == -(-len(original) * new_rate // rate)
    inner = slice(new_rate // 100, len(actual) - new_rate // 100)
    np.testing.assert_allclose(actual[inner], expected[inner], rtol=0, atol=2e-3)


def test_what_the_new_rate_cannot_carry_is_removed() -> None:
    high = resample(tone(0.5, 48000, 11000.0), 48000, 16000)
    assert np.abs(high[200:-200]).max() < 2e-3


def test_odd_and_common_rates_agree() -> None:
    """44101 Hz goes through groups of channels, 44100 Hz through one convolution."""
    common = resample(tone(0.5, 44100, 300.0), 44100, 16000)
    odd = resample(tone(0.5, 44101, 300.0), 44101, 16000)
    np.testing.assert_allclose(odd[200:7800], common[200:7800], rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 441, 442])
def test_very_short_sounds(count: int) -> None:
    samples = np.full(count, 0.5, np.float32)
    assert len(resample(samples, 44100, 16000)) == -(-count * 160 // 441)
    assert resample(samples, 16000, 16000) is samples


def test_rates_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        resample(np.zeros(10, np.float32), 0, 16000)
