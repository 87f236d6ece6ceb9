"""The flow's step loop: together as alone, chunks as they are done, leaving frees everything."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.load import FlowLoad
from cosyvoice_core.flow.memory import FlowMemory, page_bytes
from cosyvoice_core.flow.scheduler import FlowScheduler, FlowVoice, SchedulerLimits
from deployments.compute import ListenerClock
from deployments.flow_engine import FlowEngine
from tests.flow.test_session import MODEL, prompt, random_tokens
from tests.flow.test_stepper import alone

PAGES = 30


class Rig:
    """An engine and what one looks at behind it."""

    def __init__(self, batch: int = 3) -> None:
        memory = FlowMemory(MODEL, PAGES * page_bytes(MODEL, CacheForm.KEYS_VALUES))
        self.scheduler = FlowScheduler(MODEL, memory, SchedulerLimits(batch=batch))
        self.loads: list[tuple[FlowLoad, float | None]] = []
        self.engine = FlowEngine(self.scheduler, lambda load, seconds: self.loads.append((load, seconds)))

    async def spoken(self, length: int, count: int, cut: int = 20) -> Tensor:
        clock, tokens = ListenerClock(), random_tokens(count)
        async with self.engine.stream(voice(length), clock) as stream:
            pieces = [mel async for mel in self.engine.push(stream, tokens[:cut].tolist(), clock, last=False)]
            pieces += [mel async for mel in self.engine.push(stream, tokens[cut:].tolist(), clock, last=True)]
        return torch.cat(pieces, dim=1)

    async def assert_empty(self) -> None:
        """Closing is the step thread's work: whatever is behind it there has seen it done."""
        await asyncio.get_running_loop().run_in_executor(self.engine._thread, lambda: None)
        assert (self.engine.running, self.scheduler.open_streams) == (0, 0)
        assert self.scheduler.memory.pages.free == PAGES


def voice(length: int) -> FlowVoice:
    return FlowVoice(length, *prompt(length))


async def test_streams_together_sound_as_alone() -> None:
    rig = Rig()
    cases = [(0, 40), (25, 61), (28, 30), (50, 75), (3, 22)]
    together = await asyncio.gather(*(rig.spoken(*case) for case in cases))
    for (length, count), mel in zip(cases, together, strict=True):
        assert (mel - alone(length, random_tokens(count))).abs().max() <= 5e-5
    await rig.assert_empty()


async def test_chunks_leave_one_by_one() -> None:
    rig, clock = Rig(), ListenerClock()
    async with rig.engine.stream(voice(0), clock) as stream:
        sizes = [mel.shape[1] async for mel in rig.engine.push(stream, random_tokens(80).tolist(), clock, last=True)]
    assert sizes == [50, 50, 50, 10]


async def test_a_new_listener_passes_one_who_is_ahead() -> None:
    rig = Rig(batch=1)
    order: list[str] = []

    async def listen(name: str, clock: ListenerClock) -> None:
        async with rig.engine.stream(voice(0), clock) as stream:
            async for _ in rig.engine.push(stream, random_tokens(75).tolist(), clock, last=True):
                order.append(name)  # noqa: PERF401 - the order across tasks is what is looked at

    ahead = ListenerClock()
    ahead.sent(60.0)
    first = asyncio.create_task(listen("ahead", ahead))
    await asyncio.sleep(0.01)
    await listen("new", ListenerClock())
    await first
    assert order.index("new") <= 1
    assert order[-1] == "ahead"


async def test_leaving_frees_everything_and_harms_nobody() -> None:
    rig, clock = Rig(), ListenerClock()
    other = asyncio.create_task(rig.spoken(25, 61))
    async with (
        rig.engine.stream(voice(0), clock) as stream,
        aclosing(rig.engine.push(stream, random_tokens(500).tolist(), clock, last=True)) as chunks,
    ):
        await anext(chunks)
    assert (await other - alone(25, random_tokens(61))).abs().max() <= 5e-5
    await rig.assert_empty()


async def test_whoever_is_cancelled_while_a_stream_opens_leaves_nothing_behind() -> None:
    rig = Rig()
    for wait in (0.0, 0.0005, 0.002, 0.01):
        opening = asyncio.create_task(rig.spoken(60, 30))
        await asyncio.sleep(wait)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
    await rig.assert_empty()


async def test_a_broken_stream_fails_alone() -> None:
    rig, clock = Rig(), ListenerClock()
    tokens, mel, speaker = prompt(25)
    mel[3, 3] = torch.nan

    async def fail() -> None:
        async with rig.engine.stream(FlowVoice("broken", tokens, mel, speaker), clock) as stream:
            async for _ in rig.engine.push(stream, random_tokens(30).tolist(), clock, last=True):
                pass

    results = await asyncio.gather(fail(), rig.spoken(25, 61), return_exceptions=True)
    assert isinstance(results[0], EngineError)
    assert isinstance(results[1], Tensor)
    assert (results[1] - alone(25, random_tokens(61))).abs().max() <= 5e-5
    await rig.assert_empty()


async def test_too_long_an_utterance_is_refused() -> None:
    rig, clock = Rig(), ListenerClock()
    with pytest.raises(InputError, match="15000"):
        async with rig.engine.stream(voice(0), clock) as stream:
            async for _ in rig.engine.push(stream, [0] * 7501, clock, last=True):
                pass
    await rig.assert_empty()


async def test_the_load_is_told_after_each_step_and_when_all_have_left() -> None:
    rig = Rig(batch=2)
    assert [(load.free_pages, seconds) for load, seconds in rig.loads] == [(PAGES, None)]
    await asyncio.gather(*(rig.spoken(length, 40) for length in (0, 28, 30)))
    await rig.assert_empty()
    steps = [load for load, seconds in rig.loads if seconds is not None and load.stepped]
    assert {load.stepped for load in steps} == {1, 2}
    assert max(load.waiting for load in steps) >= 1
    assert min(load.free_pages for load in steps) < PAGES
    assert all(seconds > 0 for _, seconds in rig.loads if seconds is not None)
    last = rig.loads[-1][0]
    assert (last.open, last.waiting, last.free_pages, last.cache_bytes, last.prefix_misses) == (0, 0, PAGES, 0, 2)


async def test_a_fault_of_the_loop_leaves_nobody_waiting() -> None:
    rig = Rig()

    def fault(_load: FlowLoad, seconds: float | None) -> None:
        if seconds is not None:
            raise ValueError("a fault of the loop")

    rig.engine = FlowEngine(rig.scheduler, fault)
    speaking = (rig.spoken(0, 30) for _ in range(2))
    results = await asyncio.wait_for(asyncio.gather(*speaking, return_exceptions=True), 30)
    assert all(isinstance(result, EngineError) and "a fault of the loop" in str(result) for result in results)
    await rig.assert_empty()
