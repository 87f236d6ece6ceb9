"""Each measure answers to what it is named after."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_core.audio.decode import Waveform
from cosyvoice_core.voice.quality import QualityReport, measure_quality
from tests.audio.sounds import Array, tone

RATE = 16000


def bursts(noise: float = 0.0, level: float = 0.3, seconds: float = 4.0) -> Array:
    """Half-second bursts of tone with quarter-second pauses, over white noise of RMS `noise`."""
    samples = tone(seconds, RATE, level=level)
    samples *= (np.arange(len(samples)) / RATE) % 0.75 < 0.5
    return samples + np.random.default_rng(0).normal(0.0, 1.0, len(samples)).astype(np.float32) * np.float32(noise)


def report(samples: Array, rate: int = RATE) -> QualityReport:
    return measure_quality(Waveform(samples, rate))


def test_a_clean_recording_has_no_warnings() -> None:
    quality = report(bursts(noise=1e-4))
    assert quality.warnings == ()
    assert quality.duration_s == 4.0
    assert quality.level_dbfs == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.5)


@pytest.mark.parametrize("snr", [5.0, 10.0, 20.0, 30.0, 40.0])
def test_snr_is_that_of_the_noise_that_was_added(snr: float) -> None:
    noise = 0.3 / np.sqrt(2) * 10 ** (-snr / 20)
    quality = report(bursts(noise=noise))
    assert quality.snr_db == pytest.approx(snr, abs=2.5)
    assert any("noisy" in warning for warning in quality.warnings) == (snr < 15)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_clipping_share(share: float) -> None:
    samples = bursts(noise=1e-4)
    samples[: round(share * len(samples))] = 1.0
    quality = report(samples)
    assert quality.clipping_share == pytest.approx(share, abs=1e-4)
    assert any("clipped" in warning for warning in quality.warnings) == (share > 0)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_silence_share(share: float) -> None:
    samples = tone(4.0, RATE)
    samples[: round(share * len(samples))] = 0.0
    quality = report(samples)
    assert quality.silence_share == pytest.approx(share, abs=0.01)
    assert any("silence" in warning for warning in quality.warnings) == (share > 0.5)


def test_short_quiet_and_narrow_recordings_are_told() -> None:
    assert any("short" in warning for warning in report(bursts(seconds=1.0)).warnings)
    assert any("quiet" in warning for warning in report(bursts(level=0.005)).warnings)
    assert any("narrow" in warning for warning in report(bursts(), rate=8000).warnings)


def test_a_constant_offset_is_no_sound() -> None:
    samples = np.full(RATE, 0.5, np.float32)
    samples[:8000] += tone(0.5, RATE)
    assert report(samples).silence_share == pytest.approx(0.5, abs=0.02)


def test_too_few_samples_are_named() -> None:
    with pytest.raises(ValueError, match="at least 320 samples"):
        report(np.zeros(100, np.float32))
