"""Sounds and encoded files that tests send through the audio room."""

from __future__ import annotations

import io

import av
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

ENCODINGS = {
    "wav16": ("wav", "pcm_s16le", 24000),
    "wav24": ("wav", "pcm_s24le", 24000),
    "wav32": ("wav", "pcm_s32le", 24000),
    "wav8": ("wav", "pcm_u8", 24000),
    "wavfloat": ("wav", "pcm_f32le", 24000),
    "wavdouble": ("wav", "pcm_f64le", 24000),
    "flac": ("flac", "flac", 24000),
    "mp3": ("mp3", "libmp3lame", 24000),
    "opus": ("ogg", "libopus", 48000),
    "m4a": ("ipod", "aac", 24000),
    "alac": ("mp4", "alac", 24000),
    "aac": ("adts", "aac", 24000),
    "webm": ("matroska", "libopus", 48000),
}


def tone(seconds: float, rate: int, hz: float = 220.0, level: float = 0.3) -> Array:
    """(N,) sine."""
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(samples: Array, container: str, codec: str, rate: int, layout: str = "mono") -> bytes:
    """A file of `samples` (N,) at `rate` Hz, the same in every channel of `layout`."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as sink:
        stream = sink.add_stream(codec, rate=rate)
        stream.layout = layout
        channels = stream.codec_context.layout.nb_channels
        frame = av.AudioFrame.from_ndarray(np.tile(samples, (channels, 1)), format="fltp", layout=layout)
        frame.sample_rate = rate
        convert = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for piece in [*convert.resample(frame), *convert.resample(None)]:
            piece.pts = None
            sink.mux(stream.encode(piece))
        sink.mux(stream.encode(None))
    return file.getvalue()


def encoded_tone(name: str, seconds: float = 1.0, layout: str = "mono") -> bytes:
    """One second of sine in the encoding called `name`."""
    container, codec, rate = ENCODINGS[name]
    return encode(tone(seconds, rate), container, codec, rate, layout)
