"""A replica's account of its own work, on a clock of the test's."""

from __future__ import annotations

from deployments.work import WorkMeter


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


def test_shares_and_rates_are_of_the_window() -> None:
    clock = Clock()
    meter = WorkMeter(window_s=10, clock=clock)
    assert meter.stats() == {"busy": 0.0, "made": 0.0, "rtf": 0.0}
    for _ in range(20):
        clock.now += 1
        meter.worked(0.25)
        meter.made(0.5)
    stats = meter.stats()
    assert abs(stats["busy"] - 0.275) < 0.03
    assert abs(stats["made"] - 0.55) < 0.06
    assert abs(stats["rtf"] - 0.5) < 1e-9
    clock.now += 11
    assert meter.stats() == {"busy": 0.0, "made": 0.0, "rtf": 0.0}


def test_a_young_replica_is_measured_by_its_own_age() -> None:
    clock = Clock()
    meter = WorkMeter(window_s=10, clock=clock)
    clock.now += 2
    meter.worked(1.0)
    meter.made(4.0)
    assert meter.stats() == {"busy": 0.5, "made": 2.0, "rtf": 0.25}


def test_work_that_overlaps_counts_once_and_counts_while_it_lasts() -> None:
    clock = Clock()
    meter = WorkMeter(window_s=10, clock=clock)
    meter.began()
    clock.now += 2
    meter.began()
    clock.now += 2
    meter.ended()
    assert meter.stats()["busy"] == 1.0
    clock.now += 1
    meter.ended()
    clock.now += 5
    assert meter.stats()["busy"] == 0.5
