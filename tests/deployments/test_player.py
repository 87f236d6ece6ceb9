"""The simulated player: what it has left, and that its silences are the delay with which nothing would be missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.player import Player

CHUNKS = st.lists(st.tuples(st.floats(0, 5), st.floats(0.01, 3)), min_size=1, max_size=20)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def played(chunks: list[tuple[float, float]], clock: Clock) -> tuple[Player, list[float | None]]:
    """Chunks of (seconds since the one before, seconds of audio)."""
    player, left = Player(clock), []
    for wait_s, audio_s in chunks:
        clock.now += wait_s
        left.append(player.take(audio_s))
    return player, left


def test_what_was_left_when_a_chunk_came() -> None:
    player, left = played([(0, 1.0), (0.5, 1.0), (2.0, 1.0), (0.5, 1.0)], Clock())
    assert left[0] is None
    assert left[1:] == pytest.approx([0.5, -0.5, 0.5])
    assert (player.first_at, player.silence_s) == (100.0, pytest.approx(0.5))


@given(CHUNKS)
def test_all_silence_is_the_latest_chunks_delay(chunks: list[tuple[float, float]]) -> None:
    clock = Clock()
    began = clock.now + chunks[0][0]
    player, _ = played(chunks, clock)
    at, sent_s, delay_s = began, 0.0, 0.0
    for number, (wait_s, audio_s) in enumerate(chunks):
        at += wait_s if number else 0.0
        delay_s = max(delay_s, at - began - sent_s)
        sent_s += audio_s
    assert player.silence_s == pytest.approx(delay_s, abs=1e-9)
