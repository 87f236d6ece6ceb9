"""Audio files to mono float samples, within limits.

The container is recognised from its first bytes and handed to the decoder by name: guessing among all demuxers
would let an upload name other files and addresses (playlists do). Knows nothing of speech or of models.
Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.error import FFmpegError

from cosyvoice_core.audio.limits import AudioLimits
from cosyvoice_core.audio.mp4 import claims_more_samples_than
from cosyvoice_core.errors import InputError

FloatArray = npt.NDArray[np.float32]

FORMATS = "WAV, FLAC, MP3, OGG (Vorbis, Opus), M4A/MP4 (AAC, ALAC), WebM or AAC"
_CODECS = frozenset({"flac", "mp3", "mp3float", "vorbis", "opus", "libopus", "libvorbis", "aac", "alac"})
_SILENCE_WINDOW_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Waveform:
    """Mono sound: samples (N,) float32, full scale 1; rate in Hz."""

    samples: FloatArray
    rate: int

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def decode_audio(data: bytes | Path, *, limits: AudioLimits | None = None, field: str = "prompt_audio") -> Waveform:
    """Decode one audio file to the mean of its channels at its own rate; 16-bit PCM gives exactly int / 32768.

    Decoding stops as soon as `max_seconds` is passed, so a small file that unpacks to hours costs no more than
    an honest one. Raises InputError naming `field` for anything unreadable or outside `limits`.
    """
    limits = limits or AudioLimits()
    content = _read(data, limits, field)
    container = _container_of(content)
    if container is None:
        raise InputError(field, "not a known audio format", FORMATS)
    # Every sample takes at least a byte; where a sample is one frame of PCM, the time limit is the tighter bound.
    most = min(len(content), int(limits.max_seconds * limits.max_rate))
    if container == "mov" and claims_more_samples_than(content, most):
        raise InputError(field, "claims more sound than it can hold", limits.allowed_duration)
    try:
        samples, rate = _decode(content, container, limits, field)
    except (FFmpegError, ValueError, ArithmeticError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(field, f"cannot be decoded as {container}", FORMATS) from error
    _check_content(samples, rate, limits, field)
    return Waveform(samples, rate)


def _read(data: bytes | Path, limits: AudioLimits, field: str) -> bytes:
    if isinstance(data, Path):
        try:
            with data.open("rb") as file:
                data = file.read(limits.max_bytes + 1)
        except OSError as error:
            raise InputError(field, f"file cannot be read: {error.strerror or error}") from error
    if len(data) > limits.max_bytes:
        raise InputError(field, "file is too large", f"at most {limits.max_bytes} bytes")
    return data


def _container_of(content: bytes) -> str | None:
    """Name of the demuxer for these first bytes, None when they begin no accepted format."""
    start = content[:12]
    if start[:4] in (b"RIFF", b"RF64") and start[8:12] == b"WAVE":
        return "wav"
    for magic, name in ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"\x1aE\xdf\xa3", "matroska")):
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return "mov"
    if len(start) > 1 and start[0] == 0xFF and start[1] & 0xE0 == 0xE0:
        # MPEG frame header; layer bits 00 mean an AAC stream in ADTS framing.
        return "aac" if start[1] & 0x06 == 0 else "mp3"
    return None


def _decode(content: bytes, container: str, limits: AudioLimits, field: str) -> tuple[FloatArray, int]:
    blocks: list[FloatArray] = []
    count = 0
    rate = 0
    with av.open(io.BytesIO(content), "r", format=container, metadata_errors="ignore") as source:
        for frame in _frames(source, field):
            if rate and frame.sample_rate != rate:
                raise InputError(
                    field, f"changes its sample rate midway ({rate} to {frame.sample_rate} Hz)", "one sample rate"
                )
            rate = frame.sample_rate
            if not limits.min_rate <= rate <= limits.max_rate:
                raise InputError(field, f"sample rate is {rate} Hz", limits.allowed_rate)
            blocks.append(_mono(frame))
            count += len(blocks[-1])
            if count > limits.max_seconds * rate:
                raise InputError(field, f"is longer than {limits.max_seconds:g} s", limits.allowed_duration)
    if count == 0:
        raise InputError(field, "holds no sound", FORMATS)
    return np.concatenate(blocks), rate


def _frames(source: av.container.InputContainer, field: str) -> Iterator[av.AudioFrame]:
    """Frames of the first audio stream. Damage before the first or after the last good frame is passed over
    (files cut out of a stream begin and end in half a packet); what a decoder reports in between would leave a
    hole and is refused."""
    if not source.streams.audio:
        raise InputError(field, "has no audio stream", FORMATS)
    stream = source.streams.audio[0]
    # PyAV leaves the context out where no decoder is known for what the header says.
    codec = stream.codec_context.name if stream.codec_context is not None else "something unknown"
    if codec not in _CODECS and not codec.startswith("pcm_"):
        raise InputError(field, f"is coded as {codec}", FORMATS)
    stream.codec_context.thread_count = 1
    begun = damaged = False
    packets = source.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError:
            packet = None
        if packet is None:
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            damaged = begun
            continue
        for frame in frames:
            if damaged and frame.samples:
                raise InputError(field, "is damaged in the middle", "a file without holes")
            begun = True
            yield frame


def _mono(frame: av.AudioFrame) -> FloatArray:
    """Mean of the channels of one frame, (samples,) float32."""
    values = frame.to_ndarray()
    channels = frame.layout.nb_channels
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    # Doubles beyond float32 become infinite here and are refused once the whole file is known.
    with np.errstate(over="ignore", invalid="ignore"):
        if values.dtype == np.uint8:
            scaled = (values.astype(np.float32) - 128.0) / 128.0
        elif np.issubdtype(values.dtype, np.integer):
            scaled = (values / float(1 << (8 * values.dtype.itemsize - 1))).astype(np.float32)
        else:
            scaled = values.astype(np.float32)
        return np.asarray(scaled[0] if channels == 1 else scaled.mean(axis=0), np.float32)


def _check_content(samples: FloatArray, rate: int, limits: AudioLimits, field: str) -> None:
    seconds = len(samples) / rate
    if seconds < limits.min_seconds:
        raise InputError(field, f"is too short ({seconds:.2f} s)", limits.allowed_duration)
    if not np.isfinite(samples).all():
        raise InputError(field, "holds samples that are not finite numbers", "samples within -1 to 1")
    peak = float(np.abs(samples).max())
    if peak > limits.max_peak:
        raise InputError(field, f"has samples of magnitude {peak:.3g}", "floating point samples within -1 to 1")
    window = max(1, round(_SILENCE_WINDOW_SECONDS * rate))
    stretches = samples[: len(samples) // window * window].reshape(-1, window)
    loudest = float(np.sqrt(np.square(stretches, dtype=np.float64).mean(axis=1).max()))
    if loudest < limits.silence_rms:
        raise InputError(field, "is silent", f"somewhere an RMS of at least {limits.silence_rms:g} of full scale")
