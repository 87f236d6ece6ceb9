"""The simulated player: when it runs dry, for how long, and what a listener hears first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.listener import Arrival, Listener, Playback, play


def test_chunks_in_time_leave_no_gap() -> None:
    playback = play((Arrival(0.2, 0.5), Arrival(0.6, 0.5), Arrival(1.2, 0.5)))
    assert playback.gaps_s == ()
    assert playback.continuous(0.0)


def test_each_late_chunk_is_a_gap_of_its_lateness() -> None:
    playback = play((Arrival(1.0, 0.5), Arrival(1.75, 0.5), Arrival(2.0, 0.25), Arrival(2.625, 1.0)))
    assert playback.gaps_s == pytest.approx((0.25, 0.125))
    assert playback.underrun_s == pytest.approx(0.375)


def test_waiting_once_moves_all_that_follows() -> None:
    """After a gap the player is behind by it, so a chunk that would have been late no longer is."""
    assert play((Arrival(0.0, 0.5), Arrival(0.75, 0.5), Arrival(1.25, 0.5))).gaps_s == (0.25,)


@pytest.mark.parametrize(("tolerance", "continuous"), [(0.1, False), (0.3, True)])
def test_the_tolerance_decides_what_is_gap_free(tolerance: float, continuous: bool) -> None:
    assert Playback((0.15, 0.1)).continuous(tolerance) is continuous


@given(
    st.lists(st.tuples(st.floats(0, 2, allow_nan=False), st.floats(0.01, 1, allow_nan=False)), min_size=1, max_size=20)
)
def test_a_head_start_of_the_underrun_is_what_a_gapless_player_needs(chunks: list[tuple[float, float]]) -> None:
    at, arrivals = 0.0, []
    for pause, audio in chunks:
        at += pause
        arrivals.append(Arrival(at, audio))
    underrun = play(tuple(arrivals)).underrun_s
    begins, audio_before = arrivals[0].at_s + underrun, 0.0
    lateness = []
    for arrival in arrivals:
        lateness.append(arrival.at_s - (begins + audio_before))
        audio_before += arrival.audio_s
    assert max(lateness) <= 1e-9
    assert max(lateness) == pytest.approx(0 if underrun else max(lateness), abs=1e-9)


def test_a_cut_of_the_network_changes_nothing() -> None:
    whole = play((Arrival(0.0, 1.0), Arrival(1.5, 1.0)))
    cut = play((Arrival(0.0, 0.25), Arrival(0.0, 0.75), Arrival(1.5, 0.5), Arrival(1.5, 0.5)))
    assert whole == cut


@pytest.mark.parametrize("full_scale", [np.int16(32767), np.float32(1.0)])
def test_silence_at_the_start_is_measured_to_the_sample(full_scale: np.int16 | np.float32) -> None:
    listener = Listener()
    quiet = np.zeros(2400, full_scale.dtype)
    # Fainter than -50 dB: no listener hears it.
    quiet[:] = full_scale * 0.002
    sound = np.concatenate([quiet[:1200], np.full(1200, full_scale * 0.1, full_scale.dtype)])
    listener.heard(0.5, quiet, 24000)
    listener.heard(0.6, sound, 24000)
    assert listener.leading_silence_s == pytest.approx(0.15)
    assert listener.audio_s == pytest.approx(0.2)


def test_the_loudest_negative_sample_is_sound() -> None:
    listener = Listener()
    listener.heard(0.0, np.array([0, -32768], np.int16), 24000)
    assert listener.leading_silence_s == pytest.approx(1 / 24000)


def test_nothing_but_silence_is_silence_to_the_end() -> None:
    listener = Listener()
    listener.heard(0.5, np.zeros(24000, np.int16), 24000)
    assert listener.leading_silence_s == 1.0


def test_a_header_without_samples_is_no_sound() -> None:
    listener = Listener()
    listener.heard(0.1, np.zeros(0, np.int16), 24000)
    listener.heard(0.4, np.ones(240, np.int16), 24000)
    assert listener.arrivals == (Arrival(0.4, 0.01),)
