"""Samples out of bytes in any portions, and what is no such audio."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_core.audio.encode import to_pcm16, wav_header
from loadtest.doors.wav import MalformedAudioError, PcmReader, WavReader

SOUND = np.linspace(-0.9, 0.9, 501, dtype=np.float32)
PCM = to_pcm16(SOUND)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(st.integers(0, 2000), max_size=12))
def test_however_the_bytes_are_cut_the_samples_are_the_same(places: list[int]) -> None:
    wav, pcm = WavReader(), PcmReader(24000)
    from_wav = np.concatenate([wav.samples(part) for part in cut(wav_header(24000) + PCM, places)])
    from_pcm = np.concatenate([pcm.samples(part) for part in cut(PCM, places)])
    assert from_wav.tobytes() == from_pcm.tobytes() == PCM
    assert wav.whole
    assert pcm.whole
    assert wav.sample_rate == 24000


def test_a_stream_declares_nothing_and_a_file_its_true_length() -> None:
    stream, file = WavReader(), WavReader()
    stream.samples(wav_header(24000) + PCM)
    file.samples(wav_header(24000, 501) + PCM)
    assert stream.declared_bytes is None
    assert file.declared_bytes == 44 + 1002


def test_chunks_of_other_kinds_before_the_samples_are_passed_over() -> None:
    plain = wav_header(16000, 501)
    noted = plain[:36] + b"LIST\x03\0\0\0abc\0" + plain[36:]
    reader = WavReader()
    assert len(reader.samples(noted + PCM)) == 501
    assert reader.sample_rate == 16000


def test_half_a_sample_or_header_at_the_end_is_not_whole() -> None:
    pcm, wav = PcmReader(24000), WavReader()
    pcm.samples(PCM[:-1])
    wav.samples(wav_header(24000)[:40])
    assert not pcm.whole
    assert not wav.whole


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"error": {"message": "busy"}}', "not a WAV"),
        (wav_header(24000).replace(b"\x01\x00\x01\x00", b"\x01\x00\x02\x00"), "2 channels"),
        (wav_header(24000).replace(b"\x10\x00data", b"\x18\x00data"), "24 bits"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "before their format"),
        (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 600, "no samples within"),
    ],
)
def test_other_bytes_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(MalformedAudioError, match=says):
        WavReader().samples(data)
