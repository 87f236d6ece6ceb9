"""Signs of life: they come while nothing else does, they are not passed on, and without them a stream is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from deployments.pulse import Pulse, SilentError, pulsing, with_pulse, without_pulse


class Work:
    """What a stage gives: numbers, each after so many seconds; notes how it ended."""

    def __init__(self, *waits_s: float) -> None:
        self.waits_s = waits_s
        self.end = "open"

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number, wait_s in enumerate(self.waits_s):
                await asyncio.sleep(wait_s)
                yield number
            self.end = "read"
        except (GeneratorExit, asyncio.CancelledError):
            self.end = "closed"
            raise


async def test_a_stream_that_has_nothing_to_give_says_that_it_is_there() -> None:
    given = [item async for item in with_pulse(Work(0.2, 0.0).items(), 0.05)]
    assert given[0] == Pulse()
    assert given[-2:] == [0, 1]
    assert set(given[:-2]) == {Pulse()}
    assert len(given) > 3


async def test_signs_of_life_are_not_passed_on() -> None:
    pulsed = with_pulse(Work(0.3, 0.3, 0.0).items(), 0.05)
    assert [item async for item in without_pulse(pulsed, 5)] == [0, 1, 2]


async def test_a_slow_stream_is_waited_for_and_a_silent_one_is_not() -> None:
    slow = with_pulse(Work(1.2, 0.0).items(), 0.02)
    assert [item async for item in without_pulse(slow, 0.4)] == [0, 1]

    async def frozen() -> AsyncGenerator[Pulse, None]:
        yield Pulse()
        await asyncio.sleep(60)

    with pytest.raises(SilentError, match=r"no sign of life within 0\.1 s"):
        await anext(without_pulse(frozen(), 0.1))


async def test_until_a_call_is_taken_there_is_more_time() -> None:
    async def late() -> AsyncGenerator[int | Pulse, None]:
        await asyncio.sleep(0.5)
        yield Pulse()
        yield 1

    assert [item async for item in without_pulse(late(), 0.4)] == [1]
    with pytest.raises(SilentError):
        await anext(without_pulse(late(), 0.1))


async def test_an_error_is_passed_on() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise TimeoutError("of its own")

    items = without_pulse(with_pulse(broken(), 5), 5)
    assert await anext(items) == 0
    with pytest.raises(TimeoutError, match="of its own"):
        await anext(items)


@pytest.mark.parametrize("amid", ["an item", "a wait", "the start"])
async def test_closing_it_closes_what_it_reads(amid: str) -> None:
    work = Work(0.0, 60.0)
    pulsed = with_pulse(work.items(), 0.01)
    taken = {"the start": 1, "an item": 2, "a wait": 4}[amid]
    given = [await anext(pulsed) for _ in range(taken)]
    assert given == [Pulse(), 0, Pulse(), Pulse()][:taken]
    await pulsed.aclose()
    assert work.end == ("open" if amid == "the start" else "closed")


async def test_cancelling_a_reader_closes_what_is_read() -> None:
    work = Work(60.0)

    async def read() -> list[int | Pulse]:
        return [item async for item in with_pulse(work.items(), 0.01)]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0.05)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert work.end == "closed"


async def test_a_stages_method_is_a_stream_of_the_same_items() -> None:
    class Stage:
        @pulsing
        async def count(self, most: int) -> AsyncIterator[int]:
            """Numbers."""
            for number in range(most):
                yield number

    assert Stage.count.__doc__ == "Numbers."
    assert [item async for item in without_pulse(Stage().count(3), 5)] == [0, 1, 2]
