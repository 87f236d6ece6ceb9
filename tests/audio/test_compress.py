"""Compressed audio while it is made: playable at any moment, the same sound at the end."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_core.audio.compress import Compression, StreamEncoder
from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.rate import RateChange

RATE = 24000
SECONDS = 2.0


def chirp() -> np.ndarray:
    """A rising tone, so that a shift or a change of pitch shows."""
    at = np.arange(int(RATE * SECONDS)) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * at) * at)).astype(np.float32)


def encoded(compression: Compression, sound: np.ndarray, chunk: int = 5000, *, whole: bool = False) -> list[bytes]:
    encoder = StreamEncoder(compression, RATE, whole=whole)
    parts = [encoder.encode(sound[at : at + chunk]) for at in range(0, len(sound), chunk)]
    return [*parts, encoder.finish()]


def likeness(heard: np.ndarray, rate: int, sound: np.ndarray) -> float:
    """Correlation at the best shift within 0.1 s, which encoders may add at the start."""
    heard = heard[:: rate // RATE] if rate != RATE else heard
    best = 0.0
    for shift in range(0, RATE // 10, 1):
        part = heard[shift : shift + RATE]
        best = max(best, float(np.corrcoef(part, sound[: len(part)])[0, 1]))
    return best


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("compression", list(Compression))
def test_the_sound_comes_back(compression: Compression, whole: bool) -> None:
    sound = chirp()
    decoded = decode_audio(b"".join(encoded(compression, sound, whole=whole)))
    assert decoded.seconds == pytest.approx(SECONDS, abs=0.1)
    assert likeness(decoded.samples, decoded.rate, sound) > 0.98


@pytest.mark.parametrize("compression", list(Compression))
def test_a_stream_can_be_played_before_it_ends(compression: Compression) -> None:
    parts = encoded(compression, chirp(), chunk=RATE // 2)
    assert parts[0], "the first half second must already give bytes"
    heard = decode_audio(b"".join(parts[:2])).seconds
    # All but what an encoder needs to look ahead.
    assert 0.8 < heard <= 1.05


def test_flac_is_lossless_to_16_bits() -> None:
    sound = chirp()
    decoded = decode_audio(b"".join(encoded(Compression.FLAC, sound)))
    np.testing.assert_allclose(decoded.samples, sound, atol=1.1 / 32768)


def test_chunks_of_any_size_give_the_same_sound() -> None:
    sound = chirp()
    small, large = (b"".join(encoded(Compression.FLAC, sound, chunk)) for chunk in (333, 20000))
    np.testing.assert_array_equal(decode_audio(small).samples, decode_audio(large).samples)


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample rate of 22050"):
        StreamEncoder(Compression.OPUS, 22050)
    with pytest.raises(ValueError, match="finite"):
        StreamEncoder(Compression.MP3, RATE).encode(np.array([np.nan], np.float32))


@pytest.mark.parametrize("target", [8000, 16000, 22050, 44100, 48000])
def test_another_rate_is_the_same_sound(target: int) -> None:
    sound = chirp()
    change = RateChange(RATE, target)
    parts = [change.push(sound[at : at + 777]) for at in range(0, len(sound), 777)]
    heard = np.concatenate([*parts, change.finish()])
    assert len(heard) == pytest.approx(SECONDS * target, abs=target * 0.005)
    expected = np.interp(np.arange(len(heard)) / target, np.arange(len(sound)) / RATE, sound)
    inner = slice(target // 10, -target // 10)
    assert np.corrcoef(heard[inner], expected[inner])[0, 1] > 0.999


def test_the_models_own_rate_is_passed_on_untouched() -> None:
    change = RateChange(RATE, RATE)
    sound = chirp()
    assert change.push(sound) is sound
    assert not len(change.finish())
