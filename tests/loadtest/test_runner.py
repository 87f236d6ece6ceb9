"""Sending at intended times, and what becomes of each request, with doors that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import numpy as np
import pytest

from loadtest.doors.door import Answer, DoorError
from loadtest.listener import Samples
from loadtest.record import ErrorKind, Record, StageTime
from loadtest.request import Draw, PlannedRequest
from loadtest.runner import LevelRun, LevelRunner
from loadtest.scenario import Mix
from loadtest.texts import Texts

Behaviour = Callable[[int], AsyncIterator[int]]
"""Number of the request -> sample counts of its chunks."""


class ToldAnswer:
    def __init__(self, chunks: AsyncIterator[int], declared: int | None) -> None:
        self.sample_rate = 1000
        self.request_id = "told"
        self.received_bytes = 0
        self.declared_bytes = declared
        self.stages = (StageTime("lm", 0.5),)
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Samples]:
        async for count in self._chunks:
            self.received_bytes += 2 * count
            yield np.ones(count, np.int16)


class ToldDoor:
    """A door without a service: it answers as its behaviour says, so that only the runner is tested."""

    def __init__(self, behaviour: Behaviour, declared: int | None = None) -> None:
        self.behaviour = behaviour
        self.declared = declared
        self.open = 0

    def speak(self, request: PlannedRequest) -> AbstractAsyncContextManager[Answer]:
        return self._speak(request)

    @asynccontextmanager
    async def _speak(self, request: PlannedRequest) -> AsyncIterator[Answer]:
        self.open += 1
        try:
            yield ToldAnswer(self.behaviour(request.number), self.declared)
        finally:
            self.open -= 1

    async def close(self) -> None: ...


def runner(door: ToldDoor, *, mix: Mix | None = None, timeout_s: float = 5.0, duration_s: float = 0.5) -> LevelRunner:
    draw = Draw(mix or Mix(doors={"told": 1}), Texts.from_directory(), ("a",), seed=1)
    return LevelRunner({"told": door}, draw, warm_up_s=0.2, duration_s=duration_s, timeout_s=timeout_s)


async def at_once(_number: int) -> AsyncIterator[int]:
    yield 100


async def only(run: LevelRun) -> Record:
    (record,) = run.records
    return record


async def test_all_arrivals_are_asked_even_while_nobody_is_answered() -> None:
    """The open loop: 20 requests run together although none has had an answer."""
    everyone = asyncio.Event()

    async def when_all_are_there(_number: int) -> AsyncIterator[int]:
        if door.open == 20:
            everyone.set()
        await everyone.wait()
        yield 100

    door = ToldDoor(when_all_are_there)
    run = await runner(door).open_loop(tuple(n * 0.01 for n in range(20)))
    assert len(run.records) == 20
    assert run.client.streams_max == 20
    assert all(record.complete for record in run.records)


async def test_a_client_that_is_late_itself_does_not_make_answers_look_fast() -> None:
    """The event loop stands still for 0.3 s while five requests fall due: their latency counts from then."""

    async def first_blocks(number: int) -> AsyncIterator[int]:
        if number == 0:
            time.sleep(0.3)  # noqa: ASYNC251 - it is the blocking that is tested
        yield 100

    run = await runner(ToldDoor(first_blocks)).open_loop((0.0, 0.05, 0.1, 0.15, 0.2, 0.25))
    for record in run.records[1:]:
        first = record.first_audio_s
        assert first is not None
        assert first >= 0.3 - record.intended_s - 0.02
        assert record.sent_s >= 0.3 - record.intended_s - 0.02
    assert run.client.lag_max_s > 0.25
    assert run.client.bottleneck(0.05) is not None


async def test_requests_of_the_warm_up_are_marked() -> None:
    run = await runner(ToldDoor(at_once)).open_loop((0.0, 0.1, 0.3, 0.6, 5.0))
    assert [record.warm_up for record in run.records] == [True, True, False, False]
    assert (run.measured_from_s, run.measured_until_s) == pytest.approx((0.2, 0.7))


async def test_users_of_a_closed_loop_ask_one_after_another() -> None:
    most = 0

    async def watched(_number: int) -> AsyncIterator[int]:
        nonlocal most
        most = max(most, door.open)
        await asyncio.sleep(0.01)
        yield 100

    door = ToldDoor(watched)
    run = await runner(door, duration_s=0.3).closed_loop(users=3, think_s=0.0)
    assert most == 3
    assert len({record.number for record in run.records}) == len(run.records) > 6
    assert max(record.intended_s for record in run.records) < 0.5


async def test_a_listener_who_leaves_hangs_up_and_is_no_failure() -> None:
    async def endless(_number: int) -> AsyncIterator[int]:
        while True:
            yield 10
            await asyncio.sleep(0.01)

    door = ToldDoor(endless)
    mix = Mix(doors={"told": 1}, cancels=1.0, cancel_within_s=0.2)
    record = await only(await runner(door, mix=mix).open_loop((0.0,)))
    assert record.left
    assert record.failure is None
    assert record.arrivals
    assert door.open == 0


@pytest.mark.parametrize("begun", [False, True])
async def test_an_answer_that_does_not_end_in_time_is_a_timeout(begun: bool) -> None:
    async def stuck(_number: int) -> AsyncIterator[int]:
        if begun:
            yield 100
        await asyncio.Event().wait()

    door = ToldDoor(stuck)
    record = await only(await runner(door, timeout_s=0.1).open_loop((0.0,)))
    assert record.failure is not None
    assert record.failure.kind is ErrorKind.TIMEOUT
    assert len(record.arrivals) == int(begun)
    assert record.ended_s >= 0.1
    assert door.open == 0


async def test_an_answer_that_breaks_keeps_what_was_heard() -> None:
    async def breaking(_number: int) -> AsyncIterator[int]:
        yield 100
        raise DoorError(ErrorKind.CUT, "gone")

    record = await only(await runner(ToldDoor(breaking)).open_loop((0.0,)))
    assert record.failure is not None
    assert (record.failure.kind, record.failure.detail) == (ErrorKind.CUT, "gone")
    assert record.audio_s == pytest.approx(0.1)


async def test_fewer_bytes_than_declared_is_an_error_and_so_is_no_sound() -> None:
    async def silent(_number: int) -> AsyncIterator[int]:
        yield 0

    short = await only(await runner(ToldDoor(at_once, declared=201)).open_loop((0.0,)))
    whole = await only(await runner(ToldDoor(at_once, declared=200)).open_loop((0.0,)))
    empty = await only(await runner(ToldDoor(silent)).open_loop((0.0,)))
    assert short.failure is not None
    assert short.failure.kind is ErrorKind.SHORT
    assert "200 of 201" in short.failure.detail
    assert whole.failure is None
    assert whole.stages == (StageTime("lm", 0.5),)
    assert empty.failure is not None
    assert empty.failure.kind is ErrorKind.SHORT


async def test_a_mistake_in_the_client_is_never_taken_for_one_of_the_service() -> None:
    async def mistaken(_number: int) -> AsyncIterator[int]:
        raise KeyError("a mistake")
        yield 0

    with pytest.raises(ExceptionGroup) as caught:
        await runner(ToldDoor(mistaken)).open_loop((0.0,))
    assert isinstance(caught.value.exceptions[0], KeyError)
