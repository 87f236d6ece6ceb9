"""Long recordings that are to be spoken in another voice: cut where it is quiet, into pieces the tokenizer takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.voice.source import source_pieces

RATE = 16000
TOKEN = 640
LONGEST = 30 * RATE


@settings(max_examples=20)
@given(samples=st.integers(1, 100 * RATE), seed=st.integers(0, 5))
def test_pieces_make_up_the_recording_and_none_is_too_long_or_too_short(samples: int, seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal(samples).astype(np.float32)
    pieces = source_pieces(wave)
    np.testing.assert_array_equal(np.concatenate(pieces), wave)
    assert all(len(piece) <= LONGEST for piece in pieces)
    assert all(len(piece) % TOKEN == 0 for piece in pieces[:-1])
    assert len(pieces) == 1 or min(map(len, pieces)) >= RATE


@pytest.mark.parametrize("pause_s", [21.0, 25.0, 29.5])
def test_the_cut_is_in_the_pause(pause_s: float) -> None:
    wave = np.random.default_rng(0).standard_normal(40 * RATE).astype(np.float32)
    wave[round(pause_s * RATE) : round((pause_s + 0.3) * RATE)] *= 0.01
    first, _second = source_pieces(wave)
    assert pause_s < len(first) / RATE < pause_s + 0.3


@pytest.mark.parametrize("samples", [LONGEST, LONGEST - 1])
def test_what_fits_is_not_cut(samples: int) -> None:
    assert [len(piece) for piece in source_pieces(np.ones(samples, np.float32))] == [samples]
