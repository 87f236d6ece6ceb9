"""Audio files that somebody might send to break a service: made here, each with its name."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np

from cosyvoice_core.audio.encode import to_pcm16
from tests.audio.sounds import Array, encode, encoded_tone, tone

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def wav(
    data: bytes, *, rate: int = 24000, channels: int = 1, bits: int = 16, kind: int = PCM, claimed: int | None = None
) -> bytes:
    """A WAV as its fields say, true or not; `claimed` bytes of sound."""
    block = channels * bits // 8
    size = len(data) if claimed is None else claimed
    layout = struct.pack(
        "<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits
    )
    return (
        b"RIFF"
        + struct.pack("<I", min(36 + size, 0xFFFFFFFF))
        + b"WAVE"
        + layout
        + b"data"
        + struct.pack("<I", size)
        + data
    )


def quiet_hours(container: str, codec: str, rate: int, hours: float, layout: str = "mono") -> bytes:
    """Silence, of which one packet is made and told again and again."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as sink:
        stream = sink.add_stream(codec, rate=rate)
        stream.layout = layout
        first = _packet(stream, rate, layout)
        size, data = first.duration or stream.codec_context.frame_size, bytes(first)
        for number in range(int(hours * 3600 * rate / size)):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, rate)
            packet.pts = packet.dts = number * size
            packet.duration = size
            sink.mux(packet)
    return file.getvalue()


def _packet(stream: av.AudioStream, rate: int, layout: str) -> av.Packet:
    """Of silence, which is zero in every format that has a sign."""
    context = stream.codec_context
    channels, size = context.layout.nb_channels, context.frame_size or 4096
    shape = (channels, size) if context.format.is_planar else (1, size * channels)
    kind = {"s16": np.int16, "s16p": np.int16, "s32p": np.int32, "flt": np.float32, "fltp": np.float32}
    packets: list[av.Packet] = []
    while not packets:
        silence = np.zeros(shape, kind[context.format.name])
        frame = av.AudioFrame.from_ndarray(silence, format=context.format.name, layout=layout)
        frame.sample_rate = rate
        packets = stream.encode(frame)
    return packets[0]


def _floats(values: Array) -> bytes:
    return wav(np.asarray(values, "<f4").tobytes(), bits=32, kind=FLOAT)


def broken_files() -> Iterator[tuple[str, bytes]]:
    """(name, content); none of them can be a voice."""
    sound = tone(2.0, 24000)
    pcm = to_pcm16(sound)
    yield "empty", b""
    yield "one byte", b"R"
    yield "text named wav", b"This is not audio. " * 1000
    yield "json", b'{"audio": "none"}'
    yield "page", b"<html><body>404</body></html>"
    yield "archive", b"PK\x03\x04" + bytes(1000)
    yield "playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    yield "concat list", b"ffconcat version 1.0\nfile /etc/passwd\n"
    yield "zeros", bytes(100_000)
    yield "noise", np.random.default_rng(1).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
    for name in ("wav16", "flac", "mp3", "opus", "m4a", "webm", "aac"):
        whole = encoded_tone(name, 1.0)
        for share in (0.002, 0.02, 0.2):
            yield f"{name}, the first {share:.1%}", whole[: max(int(len(whole) * share), 5)]
        noise = np.random.default_rng(2).integers(0, 256, len(whole), dtype=np.uint8).tobytes()
        yield f"{name}, a head with noise", whole[:64] + noise
    for rate in (0, 1, 100, 7999, 15999, 10_000_000, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"wav at {rate} Hz", wav(pcm, rate=rate)
    for channels in (0, 64, 255, 65535):
        yield f"wav of {channels} channels, of 20 ms", wav(pcm[:960], channels=channels)
    for bits in (0, 65535):
        yield f"wav of {bits} bits", wav(pcm, bits=bits)
    yield "wav of a kind that nobody knows", wav(pcm, kind=0x1234)
    yield "wav without sound that claims 4 GiB", wav(b"", claimed=0xFFFFFFFF)
    yield "wav of 20 ms that claims 4 GiB", wav(pcm[:960], claimed=0xFFFFFFFF)
    yield "wav whose format claims 4 GiB", b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff" + bytes(100)
    yield "wav in endless chunks of nothing", b"RIFF\xff\xff\xff\xffWAVE" + b"junk\x00\x00\x00\x00" * 10_000
    yield "not a number", _floats(np.r_[sound, np.float32("nan")])
    yield "infinite", _floats(np.r_[sound, np.float32("inf")])
    yield "beyond full scale", _floats(sound * 1e30)
    yield "silence", wav(bytes(48000 * 2))
    yield "flac that claims 2^36 samples", _patched(encoded_tone("flac"), 21, b"\x0f\xff\xff\xff\xff")
    yield "picture", b"\x89PNG\r\n\x1a\n" + bytes(1000)
    yield "too short", wav(pcm[:4800])
    yield "too long", wav(to_pcm16(tone(31.0, 24000)))
    yield "coded as nobody needs", encode(tone(1.0, 16000), "wav", "adpcm_ima_wav", 16000)


def bombs() -> Iterator[tuple[str, bytes]]:
    """(name, content) of small files that would unpack to 80 to 690 MB."""
    yield "flac", quiet_hours("flac", "flac", 48000, 1.0)
    yield "flac of 8 channels", quiet_hours("flac", "flac", 48000, 0.25, "7.1")
    yield "mp3", quiet_hours("mp3", "libmp3lame", 24000, 0.25)
    yield "opus", quiet_hours("ogg", "libopus", 48000, 0.25)


def _patched(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]
