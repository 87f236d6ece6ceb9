"""Shapes, lengths and plain physics of the features."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cosyvoice_core.audio.features import kaldi_fbank, prompt_mel, speaker_fbank, whisper_log_mel
from tests.audio.sounds import Array, tone


@pytest.mark.parametrize("samples", [400, 559, 560, 561, 8000, 16123])
def test_lengths_follow_the_hops(samples: int) -> None:
    wave = tone(samples / 16000, 16000)
    assert whisper_log_mel(wave).shape == (128, samples // 160)
    assert kaldi_fbank(wave).shape == (1 + (samples - 400) // 160, 80)


@pytest.mark.parametrize("samples", [721, 960, 24000, 24479, 24480])
def test_prompt_mel_has_a_frame_per_480_samples(samples: int) -> None:
    assert prompt_mel(tone(samples / 24000, 24000)).shape == (samples // 480, 80)


def test_higher_tones_lie_in_higher_bins() -> None:
    pitches = [150.0, 400.0, 900.0, 2500.0, 6000.0]
    for feature, rate, axis in ((whisper_log_mel, 16000, 1), (kaldi_fbank, 16000, 0), (prompt_mel, 24000, 0)):
        bins = [int(feature(tone(0.5, rate, hz)).mean(axis=axis).argmax()) for hz in pitches]
        assert bins == sorted(set(bins))


def test_ten_times_the_level_adds_its_logarithm() -> None:
    """ln 10 to a mel of magnitudes, 2 ln 10 to a filter bank of powers; where the floors do not reach."""
    quiet, loud = tone(0.5, 24000, level=0.05), tone(0.5, 24000, level=0.5)
    peak = int(prompt_mel(loud).mean(axis=0).argmax())
    np.testing.assert_allclose((prompt_mel(loud) - prompt_mel(quiet))[:, peak], np.log(10), atol=1e-3)
    quiet, loud = tone(0.5, 16000, level=0.05), tone(0.5, 16000, level=0.5)
    peak = int(kaldi_fbank(loud).mean(axis=0).argmax())
    np.testing.assert_allclose((kaldi_fbank(loud) - kaldi_fbank(quiet))[:, peak], 2 * np.log(10), atol=1e-3)


def test_speaker_fbank_has_no_mean() -> None:
    np.testing.assert_allclose(speaker_fbank(tone(1.0, 16000)).mean(axis=0), 0.0, atol=1e-4)


@pytest.mark.parametrize(("feature", "most"), [(whisper_log_mel, 200), (kaldi_fbank, 399), (prompt_mel, 720)])
def test_too_few_samples_are_named(feature: Callable[[Array], Array], most: int) -> None:
    with pytest.raises(ValueError, match=f"at least {most + 1} samples"):
        feature(np.ones(most, np.float32))
    with pytest.raises(ValueError, match="waveform"):
        feature(np.ones((2, 5000), np.float32))
