"""What a record says of one request: its verdict and its rates."""

from __future__ import annotations

import pytest

from loadtest.record import ErrorKind, Record, Verdict
from loadtest.scenario import Slo
from tests.loadtest.made import record

SLO = Slo(first_audio_s=1.0, gap_tolerance_s=0.1)


@pytest.mark.parametrize(
    ("made", "verdict"),
    [
        (record(0.9), Verdict.GOOD),
        (record(1.1), Verdict.LATE),
        (record(0.9, pauses_s=(0.55,)), Verdict.GOOD),
        (record(0.9, pauses_s=(0.65,)), Verdict.GAPS),
        (record(0.9, error=ErrorKind.CUT), Verdict.FAILED),
        (record(None, error=ErrorKind.TIMEOUT), Verdict.FAILED),
        (record(None, left=True, ended_s=0.4), Verdict.LEFT),
        (record(None, left=True, ended_s=1.4), Verdict.LATE),
        (record(0.9, left=True), Verdict.GOOD),
        (record(1.1, left=True), Verdict.LATE),
    ],
)
def test_verdicts(made: Record, verdict: Verdict) -> None:
    assert made.verdict(SLO) is verdict


def test_both_real_time_factors() -> None:
    made = record(1.0, pauses_s=(0.25, 0.25), chunk_s=0.5, ended_s=1.5)
    assert made.audio_s == 1.5
    assert made.total_rtf == pytest.approx(1.5 / 1.5)
    assert made.stream_rtf == pytest.approx(0.5 / 1.0)


def test_an_answer_in_one_chunk_has_no_rate_of_streaming() -> None:
    assert record(1.0, pauses_s=()).stream_rtf is None


def test_a_listener_who_left_has_no_real_time_factor() -> None:
    made = record(0.5, left=True)
    assert made.total_rtf is None
    assert made.stream_rtf is None


def test_times_between_chunks() -> None:
    assert record(1.0, pauses_s=(0.25, 0.5)).chunk_gaps_s == pytest.approx((0.25, 0.5))
