"""Float samples to 16-bit PCM and WAV, whole or as a stream of unknown length. Knows no other container.

Source: docs/model.md, "Rates and sizes".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_UNKNOWN = 0xFFFFFFFF
_HEADER_BYTES = 44
_BYTES_PER_SAMPLE = 2


def to_pcm16(samples: FloatArray) -> bytes:
    """(N,) of full scale 1 to 2N bytes, little endian: nearest integer to 32768 x, clipped to what 16 bits hold.

    The inverse of decoding 16-bit PCM. Raises ValueError for samples that are not finite.
    """
    if not np.isfinite(samples).all():
        raise ValueError("samples must be finite to become PCM")
    scaled = np.rint(np.asarray(samples, np.float32) * np.float32(32768.0))
    return bytes(np.clip(scaled, -32768.0, 32767.0).astype("<i2").tobytes())


def wav_header(sample_rate: int, samples: int | None = None) -> bytes:
    """44 bytes that open a mono 16-bit WAV of `samples` samples.

    None is for a stream: both sizes take the largest value there is, which players read as "until the end". So do
    sounds too long for the format's 32 bits.
    """
    if sample_rate <= 0 or (samples is not None and samples < 0):
        raise ValueError(f"need a positive rate and no negative length, got {sample_rate} and {samples}")
    size = _UNKNOWN if samples is None else samples * _BYTES_PER_SAMPLE
    riff_size = min(size + _HEADER_BYTES - 8, _UNKNOWN)
    size = min(size, _UNKNOWN)
    form = struct.pack("<4sI4s", b"RIFF", riff_size, b"WAVE")
    layout = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, 1, 1, sample_rate, sample_rate * _BYTES_PER_SAMPLE, _BYTES_PER_SAMPLE, 16
    )
    return form + layout + struct.pack("<4sI", b"data", size)


def write_wav(path: Path, chunks: Iterable[FloatArray], sample_rate: int) -> int:
    """Write chunks (N,) as they come; returns the number of samples written.

    The header says "until the end" until the last chunk is there, so that a cut-off file still plays.
    """
    written = 0
    with path.open("wb") as file:
        file.write(wav_header(sample_rate))
        for chunk in chunks:
            file.write(to_pcm16(chunk))
            written += len(chunk)
        file.seek(0)
        file.write(wav_header(sample_rate, written))
    return written
