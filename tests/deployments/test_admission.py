"""Who is let in, who waits, who is refused: the gate alone, then admission with measured speeds."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deployments.args import AdmissionArgs
from deployments.ingress.admission.admission import Admission, Listening
from deployments.ingress.admission.gate import Gate, NoRoomError
from deployments.mailbox import OverloadedError
from deployments.messages import AudioHop

RATE = 24000


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# The gate


async def test_who_waits_is_let_in_by_priority_then_by_arrival() -> None:
    gate = Gate(lambda inside: inside < 1, max_waiting=10)
    await gate.enter(0)
    order: list[str] = []

    async def caller(name: str, priority: int) -> None:
        await gate.enter(priority)
        order.append(name)
        gate.leave()

    callers = [asyncio.create_task(caller(*one)) for one in (("a", 0), ("b", 0), ("urgent", 5), ("c", 0))]
    await settle()
    assert (gate.inside, gate.waiting) == (1, 4)
    gate.leave()
    await asyncio.gather(*callers)
    assert order == ["urgent", "a", "b", "c"]
    assert (gate.inside, gate.waiting) == (0, 0)


async def test_a_newcomer_does_not_pass_those_who_wait() -> None:
    places = 1
    gate = Gate(lambda inside: inside < places, max_waiting=10)
    await gate.enter(0)
    waiting = asyncio.create_task(gate.enter(0))
    await settle()
    places = 2
    assert not gate.opens_for(0)
    assert gate.opens_for(1)
    gate.admit()
    await waiting
    assert gate.inside == 2


async def test_a_full_queue_refuses_but_for_the_more_urgent() -> None:
    gate = Gate(lambda inside: inside < 1, max_waiting=1)
    await gate.enter(0)
    patient = asyncio.create_task(gate.enter(0))
    await settle()
    with pytest.raises(NoRoomError):
        await gate.enter(0)
    urgent = asyncio.create_task(gate.enter(1))
    with pytest.raises(NoRoomError):
        await patient
    gate.leave()
    await urgent


@example([("enter", 0)] * 3 + [("enter", 1)] * 2 + [("cancel", 4)] + [("leave", 0)] * 2)
@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel"]), st.integers(0, 9)), max_size=60))
def test_no_place_is_lost_or_made_whatever_happens_to_callers(events: list[tuple[str, int]]) -> None:
    async def live() -> None:
        gate = Gate(lambda inside: inside < 3, max_waiting=4)
        tasks: list[asyncio.Task[None]] = []
        for event, number in events:
            if event == "enter":
                tasks.append(asyncio.create_task(gate.enter(number % 3)))
            elif event == "leave":
                entered = [task for task in tasks if task.done() and not task.cancelled() and not task.exception()]
                if entered:
                    tasks.remove(entered[number % len(entered)])
                    gate.leave()
            elif tasks:
                # With and without the loop having noticed that it was let in.
                tasks[number % len(tasks)].cancel()
            if number % 2:
                await settle()
        await settle()
        entered = [task for task in tasks if task.done() and not task.cancelled() and not task.exception()]
        assert gate.inside == len(entered) <= 3
        assert gate.waiting == sum(not task.done() for task in tasks)
        assert not gate.waiting or gate.inside == 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(live())


# Admission


class Service:
    """An admission on a clock of the test's own, and listeners by number."""

    def __init__(self, **args: float) -> None:
        self.now = 0.0
        self.admission = Admission(AdmissionArgs.model_validate(args), RATE, clock=lambda: self.now)
        self.heard: list[Listening] = []
        self._inside: list[AsyncExitStack] = []

    async def measured(self, rate: float, seconds: float = 10.0) -> None:
        """The stages make so many audio seconds per second of one utterance."""

        async def hops() -> AsyncGenerator[AudioHop, None]:
            for _ in range(int(seconds * rate)):
                self.now += 1 / rate
                yield AudioHop(np.zeros(RATE, np.float32), (), last=False)

        async for _ in self.admission.made(hops()):
            pass

    async def enter(self, priority: int = 0, first_audio_s: float | None = None) -> None:
        stack = AsyncExitStack()
        listening = await stack.enter_async_context(self.admission.listener(priority))
        self._inside.append(stack)
        self.heard.append(listening)
        if first_audio_s is not None:
            self.now += first_audio_s
            listening.heard(1.0)

    async def leave(self, after_s: float = 0.0) -> None:
        self.now += after_s
        await self._inside.pop(0).aclose()


async def test_as_many_are_let_in_as_can_be_heard_without_gaps() -> None:
    service = Service(margin=1.25, max_first_audio_s=1000)
    await service.measured(rate=5.0)
    for _ in range(4):
        await service.enter()
    fifth = asyncio.create_task(service.enter())
    await settle()
    assert not fifth.done()
    assert (service.admission.listeners, service.admission.waiting) == (4, 1)
    await service.leave()
    await fifth
    assert (service.admission.listeners, service.admission.waiting) == (4, 0)


async def test_one_is_always_let_in_however_slow_the_stages_are() -> None:
    service = Service()
    await service.measured(rate=0.2)
    await service.enter()
    assert service.admission.most_listeners == 1


async def test_before_anything_is_known_a_few_are_let_in() -> None:
    service = Service(unproven_listeners=3, max_first_audio_s=1000)
    for _ in range(3):
        await service.enter()
    fourth = asyncio.create_task(service.enter())
    await settle()
    assert not fourth.done()
    # Faster stages than that let him in, without anybody leaving.
    await service.measured(rate=20.0)
    await fourth


async def test_who_would_wait_too_long_is_refused_at_once_and_told_when_to_come_back() -> None:
    service = Service(margin=1.0, max_first_audio_s=5.0)
    await service.measured(rate=1.0)
    await service.enter(first_audio_s=0.5)
    await service.leave(after_s=11.5)
    await service.enter()
    with pytest.raises(OverloadedError, match=r"predicted in 12\.5 s, and at most 5 s") as refusal:
        await service.enter()
    assert refusal.value.retry_after_s == pytest.approx(12.0)
    assert service.admission.waiting == 0
    await service.leave()
    await service.enter()


async def test_a_short_wait_is_waited_for_and_the_second_in_line_refused() -> None:
    service = Service(margin=1.0, max_first_audio_s=5.0)
    await service.measured(rate=1.0)
    await service.enter(first_audio_s=0.5)
    await service.leave(after_s=2.5)
    await service.enter()
    waiting = asyncio.create_task(service.enter())
    await settle()
    assert service.admission.waiting == 1
    with pytest.raises(OverloadedError):
        await service.enter()
    # The more urgent one has nobody before him.
    urgent = asyncio.create_task(service.enter(priority=1))
    await settle()
    assert service.admission.waiting == 2
    await service.leave()
    await urgent
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert service.admission.waiting == 0


async def test_a_wait_that_turns_out_too_long_ends_with_a_refusal() -> None:
    service = Service(unproven_listeners=1, max_first_audio_s=0.05)
    await service.enter()
    with pytest.raises(OverloadedError, match="none within"):
        await service.enter()
    assert (service.admission.listeners, service.admission.waiting) == (1, 0)


@pytest.mark.parametrize("complete", [True, False])
async def test_gaps_widen_the_margin_where_they_are_the_services_own(complete: bool) -> None:
    service = Service(margin=1.25)
    await service.measured(rate=10.0)
    for _ in range(8):
        async with service.admission.listener(0, complete=complete) as listening:
            listening.heard(0.5)
            service.now += 0.8
            listening.heard(1.0)
    assert (service.admission.margin > 2.5) if complete else (service.admission.margin == 1.25)


async def test_one_crowd_that_was_too_large_widens_the_margin_once() -> None:
    service = Service(margin=1.25)
    await service.measured(rate=10.0)
    for _ in range(8):
        await service.enter(first_audio_s=0.1)
    service.now += 5.0
    for listening in service.heard:
        listening.heard(1.0)
    for _ in range(8):
        await service.leave()
    assert 1.25 * 1.2 < service.admission.margin < 1.25 * 1.5


async def test_the_margin_rests_where_as_few_hear_gaps_as_allowed() -> None:
    """Stages that give gaps whenever the margin is under 2: what is learnt comes to that, from both sides."""
    service = Service(margin=1.0, gap_share=0.1)
    await service.measured(rate=10.0)
    margins, gaps = [], 0
    for number in range(1000):
        async with service.admission.listener(0) as listening:
            listening.heard(0.5)
            missed = service.admission.margin < 2.0
            service.now += 1.0 if missed else 0.4
            listening.heard(0.5)
        margins.append(service.admission.margin)
        gaps += missed and number >= 200
    assert 1.8 < np.mean(margins[200:]) < 2.7
    assert 0.05 < gaps / 800 < 0.15


async def test_files_are_bounded_apart_from_listeners() -> None:
    service = Service(max_files=1, max_waiting=1)
    async with service.admission.file(0):

        async def second() -> None:
            async with service.admission.file(0):
                pass

        waiting = asyncio.create_task(second())
        await settle()
        with pytest.raises(OverloadedError, match="files"):
            async with service.admission.file(0):
                pass
        await service.enter()
    await waiting


async def test_nobody_is_held_up_when_it_is_off() -> None:
    service = Service(enabled=False, unproven_listeners=1)
    for _ in range(50):
        await service.enter()


def test_a_refusal_keeps_its_time_on_the_way_through_ray() -> None:
    error = pickle.loads(pickle.dumps(OverloadedError("no room", 7.5)))
    assert (str(error), error.retry_after_s) == ("no room", 7.5)


# Other rules while callers are in


async def test_new_rules_count_for_those_who_wait() -> None:
    admission = Admission(AdmissionArgs(max_files=1, unproven_listeners=1), RATE)
    async with AsyncExitStack() as inside:
        await inside.enter_async_context(admission.file(0))
        await inside.enter_async_context(admission.listener(0))
        more = [inside.enter_async_context(enter(0)) for enter in (admission.file, admission.listener)]
        waiting = [asyncio.create_task(one) for one in more]
        await settle()
        assert admission.waiting == 2
        admission.reconfigure(AdmissionArgs(max_files=2, unproven_listeners=2))
        await asyncio.gather(*waiting)
        assert (admission.waiting, admission.listeners) == (0, 2)


async def test_a_call_is_counted_as_it_came_in() -> None:
    on, off = AdmissionArgs(unproven_listeners=1), AdmissionArgs(enabled=False)
    for before, after, within in ((on, off, 1), (off, on, 0)):
        admission = Admission(before, RATE)
        async with admission.listener(0):
            admission.reconfigure(after)
            assert admission.listeners == within
        assert admission.listeners == 0


async def test_nobody_waits_once_all_are_let_in() -> None:
    admission = Admission(AdmissionArgs(max_files=1, unproven_listeners=1), RATE)
    async with AsyncExitStack() as inside:
        for enter in (admission.file, admission.listener):
            await inside.enter_async_context(enter(0))
        more = [inside.enter_async_context(enter(0)) for enter in (admission.file, admission.listener)]
        waiting = [asyncio.create_task(one) for one in more]
        await settle()
        assert admission.waiting == 2
        admission.reconfigure(AdmissionArgs(enabled=False))
        await asyncio.gather(*waiting)


async def test_the_margin_is_never_less_than_the_new_one() -> None:
    admission = Admission(AdmissionArgs(margin=1.25), RATE)
    admission.reconfigure(AdmissionArgs(margin=2.0))
    assert admission.margin == 2.0
