"""What a level says in sum: who is counted, and what is left out."""

from __future__ import annotations

import pytest

from loadtest.record import ErrorKind, StageTime
from loadtest.scenario import Slo
from loadtest.summary import OUTSIDE, summarise
from tests.loadtest.made import record

SLO = Slo(first_audio_s=1.0)


def test_warm_up_is_excluded_from_all_but_the_load() -> None:
    records = [record(5.0, intended_s=1.0, warm_up=True), record(0.5, intended_s=12.0)]
    found = summarise(records, 10.0, 20.0, SLO)
    assert found.requests == 1
    assert found.first_audio is not None
    assert found.first_audio.largest == 0.5
    assert found.goodput is not None
    assert found.goodput.value == 1


def test_goodput_counts_failures_and_late_ones_but_not_those_who_left_unheard() -> None:
    records = [
        record(0.5),
        record(0.5),
        record(1.5),
        record(0.5, pauses_s=(2.0,)),
        record(None, error=ErrorKind.OVERLOADED),
        record(None, left=True, ended_s=0.2),
    ]
    found = summarise(records, 0.0, 20.0, SLO)
    assert found.goodput is not None
    assert found.goodput.value == pytest.approx(2 / 5)
    assert found.verdicts == {"good": 2, "late": 1, "gaps": 1, "failed": 1, "left": 1}
    assert found.errors == {"overloaded": 1}


def test_audio_per_second_counts_what_arrived_within_the_measured_time() -> None:
    """Half-second chunks at 9.8, 10.0 (in), 19.9 (in) and 20.1 of a level measured from 10 to 20."""
    records = [
        record(0.3, intended_s=9.5, pauses_s=(0.2,), warm_up=True),
        record(0.4, intended_s=19.5, pauses_s=(0.2,)),
    ]
    found = summarise(records, 10.0, 20.0, SLO, gpus=2)
    assert found.audio_per_s == pytest.approx(2 * 0.5 / 10)
    assert found.audio_per_s_per_gpu == pytest.approx(found.audio_per_s / 2)


def test_requests_at_once_are_averaged_over_the_measured_time() -> None:
    records = [record(0.5, intended_s=8.0, ended_s=4.0), record(0.5, intended_s=15.0, ended_s=10.0)]
    assert summarise(records, 10.0, 20.0, SLO).running == pytest.approx((2 + 5) / 10)


def test_stages_explain_the_slowest_and_leave_an_honest_remainder() -> None:
    def told(first_s: float, flow_s: float) -> tuple[StageTime, ...]:
        return (StageTime("lm", 0.1), StageTime("flow", flow_s))

    records = [record(0.3, stages=told(0.3, 0.15)) for _ in range(9)] + [record(2.0, stages=told(2.0, 1.8))]
    stages = {stage.name: stage for stage in summarise(records, 0.0, 20.0, SLO).stages}
    assert stages["flow"].slowest_s == pytest.approx(1.8)
    assert stages["flow"].mean_s == pytest.approx((9 * 0.15 + 1.8) / 10)
    assert stages[OUTSIDE].slowest_s == pytest.approx(2.0 - 1.9)


def test_a_service_that_gives_no_account_leaves_none() -> None:
    assert summarise([record(0.3)], 0.0, 20.0, SLO).stages == ()


def test_a_level_without_requests_says_so() -> None:
    found = summarise([], 0.0, 20.0, SLO)
    assert (found.requests, found.goodput, found.first_audio) == (0, None, None)
