"""What a client was sent, as sound, and how much of it is the sound it should be."""

from __future__ import annotations

import httpx
import numpy as np
import numpy.typing as npt

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.limits import AudioLimits

RATE = 24000
LOSSLESS = frozenset({"wav", "pcm", "flac"})
_ANY = AudioLimits(min_seconds=0.01, min_rate=1, max_seconds=120)
_CODEC_DELAY_S = 0.25

Sound = npt.NDArray[np.float32]


def sound_of(data: bytes, response_format: str) -> Sound:
    """(N,) at the model's rate, by PyAV; opus comes at 48 kHz and is thinned out."""
    if response_format == "pcm":
        return pcm(data)
    decoded = decode_audio(data, limits=_ANY)
    assert decoded.rate % RATE == 0
    return decoded.samples[:: decoded.rate // RATE]


def pcm(data: bytes) -> Sound:
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def wav_of(url: str, text: str, voice: str, seed: int, **more: object) -> Sound:
    """The service's own answer in wav, asked for without any client's library."""
    body = {"input": text, "voice": voice, "seed": seed, "response_format": "wav", "stream": False, **more}
    answer = httpx.post(f"{url}/v1/audio/speech", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    return sound_of(answer.content, "wav")


def assert_same_sound(heard: Sound, expected: Sound, response_format: str = "pcm") -> None:
    """To the sample where nothing is lost; else as long, and alike when laid on each other by the codec's delay."""
    assert len(expected) > RATE // 2
    if response_format in LOSSLESS:
        assert heard.shape == expected.shape
        # What else is computed at the same time may change the rounding.
        assert np.abs(heard - expected).max() < 2e-3
        return
    assert abs(len(heard) - len(expected)) < _CODEC_DELAY_S * RATE
    size = 1 << (len(heard) + len(expected)).bit_length()
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(expected, size)), size)
    likeness = product / np.sqrt(np.sum(heard**2) * np.sum(expected**2))
    most = int(_CODEC_DELAY_S * RATE)
    assert max(likeness[:most].max(), likeness[-most:].max()) > 0.9
