"""Growing texts: readers wait, replays read again, nothing grows without bound."""

from __future__ import annotations

import asyncio

import pytest

from cosyvoice_core.errors import InputError
from deployments.mailbox import Mailbox, OverloadedError, Pieces


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox(max_texts=2, max_size=10, forget_after_s=60)


async def test_a_reader_is_answered_when_text_comes(mailbox: Mailbox) -> None:
    await mailbox.open("a")
    reading = asyncio.create_task(mailbox.read("a", 0, 5))
    await asyncio.sleep(0.01)
    assert not reading.done()
    await mailbox.put("a", ("Hel", "", "lo"))
    assert await reading == Pieces(("Hel", "lo"), False)
    await mailbox.put("a", (), end=True)
    assert await mailbox.read("a", 2, 5) == Pieces((), True)


async def test_a_second_reader_gets_the_text_from_the_start(mailbox: Mailbox) -> None:
    await mailbox.open("a")
    await mailbox.put("a", ((1, 2), (3,)))
    await mailbox.put("a", ((4,),), end=True)
    assert await mailbox.read("a", 1, 5) == Pieces(((3,), (4,)), True)
    assert await mailbox.read("a", 0, 5) == Pieces(((1, 2), (3,), (4,)), True)


async def test_waiting_ends_after_its_time_and_costs_nothing_to_cancel(mailbox: Mailbox) -> None:
    await mailbox.open("a")
    assert await mailbox.read("a", 0, 0.02) == Pieces((), False)
    reading = asyncio.create_task(mailbox.read("a", 0, 60))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await mailbox.put("a", ("x",))
    assert (await mailbox.read("a", 0, 5)).pieces == ("x",)


async def test_dropping_tells_whoever_waits_or_writes(mailbox: Mailbox) -> None:
    await mailbox.open("a")
    reading = asyncio.create_task(mailbox.read("a", 0, 60))
    await asyncio.sleep(0)
    await mailbox.drop("a")
    await mailbox.drop("a")
    with pytest.raises(InputError, match="closed"):
        await reading
    with pytest.raises(InputError, match="closed"):
        await mailbox.put("a", ("x",))
    assert await mailbox.count() == 0


async def test_sizes_and_numbers_are_bounded(mailbox: Mailbox) -> None:
    await mailbox.open("a")
    await mailbox.put("a", ("12345",))
    with pytest.raises(InputError, match="at most 10"):
        await mailbox.put("a", ("123456",))
    await mailbox.put("a", ("12345",), end=True)
    with pytest.raises(InputError, match="ended already"):
        await mailbox.put("a", ("",))
    await mailbox.open("b")
    with pytest.raises(OverloadedError, match="2 texts"):
        await mailbox.open("c")


async def test_a_forgotten_text_makes_room() -> None:
    mailbox = Mailbox(max_texts=1, max_size=10, forget_after_s=0.02)
    await mailbox.open("a")
    await asyncio.sleep(0.05)
    await mailbox.open("b")
    assert await mailbox.count() == 1
