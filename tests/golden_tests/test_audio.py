"""Decoding, resampling and features against the numbers of the original front end."""

from __future__ import annotations

import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.features import kaldi_fbank, prompt_mel, speaker_fbank, whisper_log_mel
from cosyvoice_core.audio.resample import resample
from tests.golden_tests.arrays import read_arrays

pytestmark = pytest.mark.golden

Array = npt.NDArray[np.float32]

WAVES = {"wav16k": 16000, "wav24k": 24000}
FEATURES: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "whisper_logmel128": ("wav16k", whisper_log_mel),
    "fbank80_raw": ("wav16k", kaldi_fbank),
    "fbank80_meannorm": ("wav16k", speaker_fbank),
    "mel24k": ("wav24k", prompt_mel),
}


@pytest.fixture(scope="module")
def arrays(golden_lm: Path) -> dict[str, Array]:
    return read_arrays(golden_lm / "audio.npz")


def split(key: str) -> tuple[str, str]:
    name, _, kind = key.rpartition(".")
    return name, kind


def assert_feature_close(actual: Array, expected: Array, name: str, kind: str, mean: float = 1e-4) -> None:
    """Log-mel to 1e-4, others to 1e-3; sweeps and tones have nearly empty bins, where float32 noise shows."""
    assert actual.shape == expected.shape
    error = np.abs(actual - expected)
    if kind == "whisper_logmel128":
        assert error.max() <= 1e-4
    elif name.startswith("speech"):
        assert error.max() <= 1e-3
    else:
        assert error.max() <= 2e-2
        assert error.mean() <= mean


def test_every_array_is_of_a_known_kind(arrays: dict[str, Array]) -> None:
    assert arrays
    assert {split(key)[1] for key in arrays} == set(WAVES) | set(FEATURES)


def test_pcm16_decodes_to_int_over_32768(golden_lm: Path, arrays: dict[str, Array]) -> None:
    paths = sorted((golden_lm / "audio").glob("*.wav"))
    assert {path.stem for path in paths} >= {split(key)[0] for key in arrays}
    for path in paths:
        with wave.open(str(path)) as source:
            assert source.getsampwidth() == 2
            integers = np.frombuffer(source.readframes(source.getnframes()), "<i2")
            channels, rate = source.getnchannels(), source.getframerate()
        expected = (integers.reshape(-1, channels) / 32768.0).mean(axis=1).astype(np.float32)
        for decoded in (decode_audio(path), decode_audio(path.read_bytes())):
            assert decoded.rate == rate
            np.testing.assert_allclose(decoded.samples, expected, rtol=0, atol=1e-7)


def test_resampled_waveforms(golden_lm: Path, arrays: dict[str, Array]) -> None:
    for key, expected in arrays.items():
        name, kind = split(key)
        if kind in WAVES:
            decoded = decode_audio(golden_lm / "audio" / f"{name}.wav")
            actual = resample(decoded.samples, decoded.rate, WAVES[kind])
            assert actual.shape == expected.shape, key
            np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", FEATURES)
def test_features_of_the_stored_waveforms(arrays: dict[str, Array], kind: str) -> None:
    source, feature = FEATURES[kind]
    for key, expected in arrays.items():
        name, found = split(key)
        if found == kind:
            assert_feature_close(feature(arrays[f"{name}.{source}"]), expected, name, kind)


@pytest.mark.parametrize("kind", FEATURES)
def test_features_from_the_file(golden_lm: Path, arrays: dict[str, Array], kind: str) -> None:
    source, feature = FEATURES[kind]
    for key, expected in arrays.items():
        name, found = split(key)
        if found == kind:
            decoded = decode_audio(golden_lm / "audio" / f"{name}.wav")
            samples = resample(decoded.samples, decoded.rate, WAVES[source])
            # Another CPU sums the resampler's products in another order; nearly empty bins hear that too.
            assert_feature_close(feature(samples), expected, name, kind, mean=1e-3)
