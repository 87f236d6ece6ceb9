"""The compute thread: order by deadline, cancellation, errors that stay with their job."""

from __future__ import annotations

import asyncio
import threading

import pytest

from deployments.compute import ComputeThread, ListenerClock


async def test_jobs_run_in_order_of_their_deadline() -> None:
    compute = ComputeThread("test")
    gate = threading.Event()
    order: list[str] = []
    first = asyncio.create_task(compute.run((0, 0.0), gate.wait))
    await asyncio.sleep(0)
    others = [
        asyncio.create_task(compute.run(due, lambda name=name: order.append(name)))
        for name, due in [("late", (1, 9.0)), ("soon", (1, 2.0)), ("new", (0, 5.0))]
    ]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, *others)
    assert order == ["new", "soon", "late"]


async def test_a_cancelled_job_never_starts() -> None:
    compute = ComputeThread("test")
    gate = threading.Event()
    ran: list[int] = []
    first = asyncio.create_task(compute.run((0, 0.0), gate.wait))
    doomed = asyncio.create_task(compute.run((0, 1.0), lambda: ran.append(1)))
    kept = asyncio.create_task(compute.run((0, 2.0), lambda: ran.append(2)))
    await asyncio.sleep(0)
    doomed.cancel()
    gate.set()
    await asyncio.gather(first, kept)
    assert ran == [2]


async def test_an_error_reaches_only_its_own_job() -> None:
    compute = ComputeThread("test")

    def fail() -> None:
        raise RuntimeError("this one")

    results = await asyncio.gather(
        compute.run((0, 0.0), fail), compute.run((0, 1.0), lambda: "fine"), return_exceptions=True
    )
    assert isinstance(results[0], RuntimeError)
    assert results[1] == "fine"


async def test_the_loop_stays_free_while_a_job_runs() -> None:
    compute = ComputeThread("test")
    gate = threading.Event()
    job = asyncio.create_task(compute.run((0, 0.0), gate.wait))
    await asyncio.sleep(0.05)
    assert not job.done()
    gate.set()
    assert await asyncio.wait_for(job, 5)


def test_listeners_who_heard_nothing_come_first() -> None:
    new, playing = ListenerClock(), ListenerClock()
    playing.sent(5.0)
    assert new.due < playing.due
    fresh = ListenerClock()
    assert new.due < fresh.due


def test_who_runs_dry_soonest_comes_next() -> None:
    short, long = ListenerClock(), ListenerClock()
    long.sent(5.0)
    short.sent(1.0)
    assert short.due < long.due
    assert 4.5 < long.ahead_s <= 5.0


def test_an_utterance_made_ahead_passes_nobody_who_waits() -> None:
    ahead, new, playing = ListenerClock(lead_s=3.0), ListenerClock(), ListenerClock()
    playing.sent(1.0)
    assert new.due < playing.due < ahead.due
    before = ahead.due
    ahead.sent(2.0)
    assert ahead.due[1] == pytest.approx(before[1] + 2.0)


def test_empty_hops_do_not_start_the_clock() -> None:
    clock = ListenerClock()
    clock.sent(0.0)
    assert clock.due[0] == 0
    assert clock.ahead_s == pytest.approx(0.0)
