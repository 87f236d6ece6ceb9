"""Float samples to compressed audio, chunk by chunk: MP3, Opus, AAC and FLAC. Knows no doors and no speech.

The encoders are FFmpeg's, through PyAV. What has been given so far can be played: every call returns all packets that
are complete, and no format here needs its end to be read.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum

import av
import numpy as np
import numpy.typing as npt
from av.audio import AudioStream
from av.audio.resampler import AudioResampler

FloatArray = npt.NDArray[np.float32]


class Compression(StrEnum):
    """Formats with an encoder."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"


@dataclass(frozen=True, slots=True)
class _Settings:
    """bit_rate: bits per second, 0 where it follows from the sound; rates: Hz that the encoder takes."""

    container: str
    codec: str
    sample_format: str
    bit_rate: int
    rates: tuple[int, ...]
    options: dict[str, str]
    codec_options: dict[str, str]


_MPEG_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_SETTINGS = {
    # Bit rates where listeners no longer tell a single voice at 24 kHz from the original.
    Compression.MP3: _Settings("mp3", "libmp3lame", "fltp", 64_000, _MPEG_RATES, {}, {}),
    # A page each 100 ms instead of a second, or the first audio would wait for one.
    Compression.OPUS: _Settings(
        "ogg",
        "libopus",
        "flt",
        48_000,
        (8000, 12000, 16000, 24000, 48000),
        {"page_duration": "100000"},
        {"application": "audio"},
    ),
    Compression.AAC: _Settings("adts", "aac", "fltp", 64_000, _MPEG_RATES, {}, {}),
    # Frames of 100 ms: its own choice would hold back a fifth of a second.
    Compression.FLAC: _Settings("flac", "flac", "s16", 0, _MPEG_RATES, {}, {"frame_size": "2400"}),
}


class _Outbox(io.RawIOBase):
    """What the muxer has written since it was last asked; it cannot go back, as a network cannot."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class StreamEncoder:
    """One sound in one format; use from one thread at a time."""

    def __init__(self, compression: Compression, sample_rate: int, *, whole: bool = False) -> None:
        """whole: everything is returned by `finish`, with the true length where the format has a place for it.

        Raises ValueError for a sample rate that the format does not have.
        """
        settings = _SETTINGS[compression]
        if sample_rate not in settings.rates:
            raise ValueError(f"{compression} has no sample rate of {sample_rate} Hz; it has {settings.rates}")
        self._rate = sample_rate
        self._file: io.BytesIO | None = io.BytesIO() if whole else None
        self._outbox = _Outbox()
        options = {"flush_packets": "1", **settings.options}
        if not whole and compression is Compression.MP3:
            # A frame with the length, which a stream does not know.
            options |= {"write_xing": "0", "id3v2_version": "0"}
        self._container = av.open(
            self._file or self._outbox, "w", format=settings.container, options=options, buffer_size=4096
        )
        stream = self._container.add_stream(
            settings.codec, rate=sample_rate, layout="mono", options=settings.codec_options
        )
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.format = settings.sample_format
        if settings.bit_rate:
            self._stream.bit_rate = settings.bit_rate
        self._to_format = AudioResampler(format=settings.sample_format, layout="mono", rate=sample_rate)
        self._samples = 0

    def encode(self, samples: FloatArray) -> bytes:
        """(N,) of full scale 1 to the packets that are complete with it. Raises ValueError unless they are finite."""
        if not len(samples):
            return b""
        if not np.isfinite(samples).all():
            raise ValueError("samples must be finite to be encoded")
        clipped = np.clip(np.asarray(samples, np.float32), -1.0, 1.0)
        frame = av.AudioFrame.from_ndarray(clipped[None, :], format="flt", layout="mono")
        frame.sample_rate = self._rate
        frame.pts = self._samples
        self._samples += len(samples)
        for converted in self._to_format.resample(frame):
            self._mux(converted)
        return self._outbox.take()

    def finish(self) -> bytes:
        """The rest. The encoder is used up."""
        self._mux(None)
        self._container.close()
        return self._outbox.take() if self._file is None else self._file.getvalue()

    def _mux(self, frame: av.AudioFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
