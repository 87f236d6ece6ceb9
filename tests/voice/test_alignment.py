"""Prompts are cut so that their first chunk of speech is as long as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_core.voice.alignment import ChunkAlignment


def prompt(length: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(length, dtype=np.int32), np.repeat(np.arange(2 * length, dtype=np.float32)[:, None], 80, 1)


@pytest.mark.parametrize("first", [1, 15, 22, 25])
@pytest.mark.parametrize("length", [75, 76, 88, 99, 100, 250])
def test_a_chunk_ends_where_asked_behind_every_prompt(length: int, first: int) -> None:
    tokens, mel = ChunkAlignment(25, first).cut(*prompt(length))
    assert (len(tokens) + first) % 25 == 0
    assert length - len(tokens) < 25
    # What is left is the end, and tokens and mel still belong together.
    assert tokens[-1] == length - 1
    assert mel[0, 0] == 2 * tokens[0]
    assert len(mel) == 2 * len(tokens)


@pytest.mark.parametrize("length", [0, 1, 20, 30])
def test_a_short_prompt_loses_less_than_a_third(length: int) -> None:
    tokens, mel = ChunkAlignment(25, 15).cut(*prompt(length))
    assert 3 * (length - len(tokens)) < max(length, 1)
    assert len(mel) == 2 * len(tokens)


@pytest.mark.parametrize("first", [0, 26])
def test_a_first_chunk_beyond_a_chunk_is_refused(first: int) -> None:
    with pytest.raises(ValueError, match="1 to 25"):
        ChunkAlignment(25, first)
