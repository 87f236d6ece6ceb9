"""PCM and WAV: what is written is what is read back."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.encode import to_pcm16, wav_header, write_wav
from tests.audio.sounds import Array, tone


@given(arrays(np.int16, st.integers(0, 200)))
def test_pcm_of_decoded_pcm_is_the_same_bytes(integers: np.ndarray) -> None:
    assert to_pcm16((integers / 32768.0).astype(np.float32)) == integers.astype("<i2").tobytes()


@given(arrays(np.float32, st.integers(0, 200), elements=st.floats(-4, 4, width=32)))
def test_pcm_is_the_nearest_value_and_saturates(samples: Array) -> None:
    decoded = np.frombuffer(to_pcm16(samples), "<i2") / 32768.0
    np.testing.assert_allclose(decoded, np.clip(samples, -1.0, 32767 / 32768), rtol=0, atol=0.5 / 32768 + 1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pcm_of_nonsense_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        to_pcm16(np.array([0.0, bad], np.float32))


@given(st.integers(1, 200000), st.integers(0, 1 << 20))
def test_header_is_read_by_other_readers(rate: int, samples: int) -> None:
    header = wav_header(rate, samples)
    assert len(header) == 44
    with wave.open(io.BytesIO(header + bytes(2 * samples))) as source:
        assert source.getparams()[:4] == (1, 2, rate, samples)
        assert len(source.readframes(samples)) == 2 * samples


def test_header_of_a_stream_says_until_the_end() -> None:
    header = wav_header(24000)
    assert header[4:8] == header[40:44] == b"\xff\xff\xff\xff"
    assert wav_header(24000, 1 << 33)[40:44] == b"\xff\xff\xff\xff"


def test_header_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="positive rate"):
        wav_header(0)
    with pytest.raises(ValueError, match="positive rate"):
        wav_header(24000, -1)


@given(st.lists(st.integers(0, 30000), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) > 12000))
def test_chunks_written_one_by_one_read_back_as_one(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path: Path = tmp_path_factory.mktemp("wav") / "out.wav"
    whole = tone(sum(sizes) / 24000, 24000)
    pieces = np.split(whole, np.cumsum(sizes)[:-1])
    assert write_wav(path, iter(pieces), 24000) == len(whole)
    with wave.open(str(path)) as source:
        assert source.getnframes() == len(whole)
    np.testing.assert_allclose(decode_audio(path).samples, whole, rtol=0, atol=0.5 / 32768 + 1e-9)


def test_a_file_cut_off_while_writing_still_plays(tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"

    def failing() -> Iterator[Array]:
        yield tone(1.0, 24000)
        raise RuntimeError("the engine stopped")

    with pytest.raises(RuntimeError, match="engine stopped"):
        write_wav(path, failing(), 24000)
    assert decode_audio(path).seconds == 1.0
