"""A replica's account of its own work, on a clock of the test's."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.work import WorkMeter, cpu_of_process, cpu_of_thread


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


def test_work_and_sound_are_told_once() -> None:
    clock, told = Clock(), []
    meter = WorkMeter(window_s=10, clock=clock, on_work=lambda *what: told.append(what))
    for _ in range(100):
        clock.now += 0.01
        meter.worked(0.005)
        meter.made(0.02)
    assert 2 <= len(told) <= 11
    meter.stats()
    assert sum(busy for busy, _made in told) == pytest.approx(0.5)
    assert sum(made for _busy, made in told) == pytest.approx(2.0)
    before = len(told)
    meter.stats()
    assert len(told) == before


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


def test_on_a_cpu_only_computing_counts() -> None:
    """A thread that waits is not at work, however long its step takes; nor is one that nobody has told of."""
    with ThreadPoolExecutor(1) as pool:
        clock = cpu_of_thread(pool)
        assert clock is not None
        meter = WorkMeter(clock)
        pool.submit(time.sleep, 0.3).result()
        meter.worked(0.3)
        waited = meter.stats()["busy"]
        until = time.thread_time_ns
        pool.submit(lambda end: [None for _ in iter(lambda: until() < end, False)], int(4e8)).result()
        computed = meter.stats()["busy"]
    assert waited < 0.2
    assert computed > 2 * waited


def test_a_process_is_counted_with_its_children_and_may_end() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        clock = cpu_of_process(process.pid)
        computed = clock()
        assert 0.3 <= computed < 3
        process.communicate("\n")
    assert clock() == computed


def test_the_system_is_not_asked_for_every_token() -> None:
    clock, asked = Clock(), 0

    def cpu() -> float:
        nonlocal asked
        asked += 1
        return clock.now / 2

    meter = WorkMeter(cpu, window_s=10, clock=clock)
    for _ in range(10_000):
        clock.now += 0.002
        meter.made(0.04)
    stats = meter.stats()
    assert asked < 250
    assert abs(stats["busy"] - 0.5) < 0.02
    assert abs(stats["made"] - 20) < 0.5
