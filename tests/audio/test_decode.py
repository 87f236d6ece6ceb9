"""Any accepted file decodes to what was put in; anything else is refused by name, at bounded cost."""

from __future__ import annotations

import io
import struct
import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.audio.decode import Waveform, decode_audio
from cosyvoice_core.audio.encode import to_pcm16, wav_header
from cosyvoice_core.audio.limits import AudioLimits
from cosyvoice_core.audio.mp4 import claims_more_samples_than
from cosyvoice_core.errors import InputError
from tests.audio.sounds import ENCODINGS, Array, encode, encoded_tone, tone

LOSSLESS = {"wav16": 2**-16, "wav24": 2**-20, "wav32": 2**-20, "wav8": 2**-7, "flac": 2**-16, "alac": 2**-20}


def float_wav(samples: Array, rate: int = 24000) -> bytes:
    """A WAV of 32-bit floats, written by hand so that it may hold what no encoder would write."""
    data = np.asarray(samples, "<f4").tobytes()
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate, 4 * rate, 4, 32)
    return (
        b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + layout + struct.pack("<4sI", b"data", len(data)) + data
    )


def wav(samples: Array, rate: int) -> bytes:
    return wav_header(rate, len(samples)) + to_pcm16(samples)


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_every_accepted_format_gives_the_sound_back(name: str, layout: str) -> None:
    decoded = decode_audio(encoded_tone(name, layout=layout))
    expected = tone(1.0, decoded.rate)
    assert decoded.rate == ENCODINGS[name][2]
    assert decoded.samples.dtype == np.float32
    assert abs(decoded.seconds - 1.0) < 0.1
    if name in LOSSLESS or name in ("wavfloat", "wavdouble"):
        np.testing.assert_allclose(decoded.samples, expected, rtol=0, atol=LOSSLESS.get(name, 1e-7))
    else:
        spectrum = np.abs(np.fft.rfft(decoded.samples[: decoded.rate]))
        assert abs(int(spectrum.argmax()) - 220) <= 2
        rms = float(np.sqrt(np.mean(decoded.samples**2)))
        assert abs(rms - 0.3 / np.sqrt(2)) < 0.02


def test_channels_are_averaged() -> None:
    rate = 16000
    left, right = tone(1.0, rate, 300.0), tone(1.0, rate, 500.0)
    stereo = np.stack([left, right], 1).reshape(-1)
    file = io.BytesIO()
    with wave.open(file, "wb") as sink:
        sink.setnchannels(2)
        sink.setsampwidth(2)
        sink.setframerate(rate)
        sink.writeframes(to_pcm16(stereo))
    expected = np.frombuffer(to_pcm16(stereo), "<i2").reshape(-1, 2).mean(axis=1) / 32768.0
    np.testing.assert_array_equal(decode_audio(file.getvalue()).samples, expected.astype(np.float32))


def test_a_header_without_length_plays_to_the_end() -> None:
    samples = tone(1.0, 24000)
    streamed = wav_header(24000) + to_pcm16(samples)
    assert len(decode_audio(streamed).samples) == len(samples)


@pytest.mark.parametrize("name", ["wav16", "flac", "mp3", "opus", "m4a"])
@pytest.mark.parametrize(("seconds", "problem"), [(0.3, "too short"), (31.0, "longer than 30 s")])
def test_durations_outside_the_limits_are_refused(name: str, seconds: float, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        decode_audio(encoded_tone(name, seconds))
    assert caught.value.field == "prompt_audio"
    assert caught.value.allowed == "0.5 to 30 s"


@pytest.mark.parametrize("seconds", [0.5, 30.0])
def test_the_limits_themselves_are_accepted(seconds: float) -> None:
    assert decode_audio(wav(tone(seconds, 16000), 16000)).seconds == seconds


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a known audio format"),
        (b"hello", "not a known audio format"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n", "not a known audio format"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not a known audio format"),
        (b"RIFF\x00\x00\x00\x00WAVE", "cannot be decoded as wav|holds no sound|no audio stream"),
        (b"fLaC" + bytes(100), "cannot be decoded as flac|holds no sound"),
        (b"OggS" + bytes(100), "cannot be decoded as ogg|no audio stream"),
        (wav(np.zeros(16000, np.float32), 16000), "is silent"),
        (float_wav(np.r_[tone(1.0, 24000), np.float32("nan")]), "not finite"),
        (float_wav(np.r_[tone(1.0, 24000), np.float32("inf")]), "not finite"),
        (float_wav(tone(1.0, 24000, level=30000.0)), "magnitude"),
        (wav(tone(1.0, 8000), 8000), "sample rate is 8000 Hz"),
        (wav(tone(0.6, 400000), 400000), "sample rate is 400000 Hz"),
        (encode(tone(1.0, 16000), "wav", "adpcm_ima_wav", 16000), "coded as adpcm_ima_wav"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(content: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        decode_audio(content, field="source_audio")
    assert caught.value.field == "source_audio"


def test_lower_limits_admit_lower_rates() -> None:
    limits = AudioLimits(min_rate=8000)
    assert decode_audio(wav(tone(1.0, 8000), 8000), limits=limits).rate == 8000


def test_files_on_disk_are_bounded_and_reported(tmp_path: Path) -> None:
    file = tmp_path / "voice.flac"
    file.write_bytes(encoded_tone("flac"))
    assert decode_audio(file).seconds == 1.0
    with pytest.raises(InputError, match="too large"):
        decode_audio(file, limits=AudioLimits(max_bytes=1000))
    with pytest.raises(InputError, match="cannot be read"):
        decode_audio(tmp_path / "absent.wav")
    with pytest.raises(InputError, match="cannot be read"):
        decode_audio(tmp_path)


def test_an_hour_packed_into_a_small_file_costs_no_hour() -> None:
    """An hour of quiet is 345 MB decoded."""
    hour = np.zeros(3600 * 24000, np.float32)
    content = encode(hour, "flac", "flac", 24000)
    assert len(content) < 1 << 20
    del hour
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="longer than 30 s"):
            decode_audio(content)
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_a_sample_table_that_claims_billions_is_refused_before_it_is_believed() -> None:
    content = bytearray(encoded_tone("m4a"))
    assert not claims_more_samples_than(bytes(content), len(content))
    table = content.index(b"stsz")
    content[table + 8 : table + 16] = struct.pack(">II", 1, 1 << 26)
    with pytest.raises(InputError, match="claims more sound"):
        decode_audio(bytes(content))


def test_fragments_and_compressed_tables_count_too() -> None:
    def box(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(payload), kind) + payload

    run = box(b"trun", struct.pack(">II", 0, 600))
    fragments = box(b"ftyp", bytes(8)) + 2 * box(b"moof", box(b"traf", run))
    assert claims_more_samples_than(fragments, 1199)
    assert not claims_more_samples_than(fragments, 1200)
    assert claims_more_samples_than(box(b"moov", box(b"cmov", bytes(8))), 1 << 30)


@pytest.mark.parametrize("name", ["wav16", "flac", "mp3", "opus", "aac"])
def test_a_file_cut_off_within_its_last_packets_still_decodes(name: str) -> None:
    content = encoded_tone(name, 3.0)
    assert 1.5 < decode_audio(content[: len(content) - 300]).seconds < 3.1


@pytest.mark.parametrize("name", ["mp3", "m4a", "aac"])
def test_damage_that_would_leave_a_hole_is_refused(name: str) -> None:
    content = bytearray(encoded_tone(name, 3.0))
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    with pytest.raises(InputError, match="damaged in the middle"):
        decode_audio(bytes(content))


@settings(max_examples=300)
@given(st.binary(max_size=600))
def test_random_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        decode_audio(content)


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            b"RIFF\xff\xff\xff\x7fWAVE",
            b"fLaC",
            b"OggS",
            b"ID3\x04",
            b"\x1aE\xdf\xa3",
            b"\x00\x00\x00\x18ftypM4A ",
            b"\xff\xfb",
            b"\xff\xf1",
        ]
    ),
    st.binary(max_size=600),
)
def test_random_bytes_behind_a_known_beginning_are_refused(magic: bytes, content: bytes) -> None:
    with pytest.raises(InputError):
        decode_audio(magic + content)


FILES = {name: encoded_tone(name) for name in ENCODINGS}


@settings(max_examples=400)
@given(st.data())
def test_a_damaged_file_gives_sound_within_the_limits_or_an_input_error(data: st.DataObject) -> None:
    content = bytearray(FILES[data.draw(st.sampled_from(sorted(FILES)), label="file")])
    # Headers are where damage does most: half of the changes fall into the first 200 bytes.
    place = st.one_of(st.integers(0, 199), st.integers(0, len(content) - 1))
    for position, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=8), label="changes"):
        content[position] = value
    end = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))), label="end")
    try:
        decoded = decode_audio(bytes(content[:end]))
    except InputError:
        return
    assert isinstance(decoded, Waveform)
    assert np.isfinite(decoded.samples).all()
    assert 0.5 <= decoded.seconds <= 30.0
    assert 16000 <= decoded.rate <= 192000
