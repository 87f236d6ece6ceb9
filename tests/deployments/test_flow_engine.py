"""The flow's step loop: together as alone, urgent first, errors and leaving touch nobody else."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.flow import FlowSession
from cosyvoice_core.flow.stream import FlowStream
from deployments.compute import ListenerClock
from deployments.flow_engine import FlowEngine
from tests.flow.test_session import MODEL, prompt, random_tokens


async def spoken(engine: FlowEngine, prompt_length: int, count: int, cut: int = 20) -> Tensor:
    stream, clock, tokens = FlowStream(MODEL, *prompt(prompt_length)), ListenerClock(), random_tokens(count)
    pieces = [mel async for mel in engine.push(stream, tokens[:cut].tolist(), clock, last=False)]
    pieces += [mel async for mel in engine.push(stream, tokens[cut:].tolist(), clock, last=True)]
    return torch.cat(pieces, dim=1)


async def test_streams_together_sound_as_alone() -> None:
    engine = FlowEngine(MODEL, max_batch=3)
    cases = [(0, 40), (25, 61), (28, 30), (50, 75), (3, 22)]
    together = await asyncio.gather(*(spoken(engine, *case) for case in cases))
    for case, mel in zip(cases, together, strict=True):
        expected = FlowSession(MODEL, *prompt(case[0])).push(random_tokens(case[1]), last=True)
        assert (mel - expected).abs().max() <= 5e-5
    assert engine.running == 0


async def test_chunks_leave_one_by_one() -> None:
    engine = FlowEngine(MODEL, max_batch=2)
    stream = FlowStream(MODEL, *prompt(0))
    sizes = [mel.shape[1] async for mel in engine.push(stream, random_tokens(80).tolist(), ListenerClock(), last=True)]
    assert sizes == [50, 50, 50, 10]


async def test_a_new_listener_passes_one_who_is_ahead() -> None:
    engine = FlowEngine(MODEL, max_batch=1)
    order: list[str] = []

    async def listen(name: str, clock: ListenerClock) -> None:
        stream = FlowStream(MODEL, *prompt(0))
        async for _ in engine.push(stream, random_tokens(75).tolist(), clock, last=True):
            order.append(name)  # noqa: PERF401 - the order across tasks is what is looked at

    ahead = ListenerClock()
    ahead.sent(60.0)
    first = asyncio.create_task(listen("ahead", ahead))
    await asyncio.sleep(0.01)
    await listen("new", ListenerClock())
    await first
    assert order.index("new") <= 1
    assert order[-1] == "ahead"


async def test_leaving_frees_the_place_and_harms_nobody() -> None:
    engine = FlowEngine(MODEL, max_batch=2)
    stream = FlowStream(MODEL, *prompt(0))
    other = asyncio.create_task(spoken(engine, 25, 61))
    async with aclosing(engine.push(stream, random_tokens(500).tolist(), ListenerClock(), last=True)) as chunks:
        await anext(chunks)
    expected = FlowSession(MODEL, *prompt(25)).push(random_tokens(61), last=True)
    assert (await other - expected).abs().max() <= 5e-5
    assert engine.running == 0


async def test_a_broken_stream_fails_alone() -> None:
    engine = FlowEngine(MODEL, max_batch=4)
    tokens, mel, speaker = prompt(25)
    mel[3, 3] = torch.nan
    broken = FlowStream(MODEL, tokens, mel, speaker)

    async def fail() -> None:
        async for _ in engine.push(broken, random_tokens(30).tolist(), ListenerClock(), last=True):
            pass

    results = await asyncio.gather(fail(), spoken(engine, 25, 61), return_exceptions=True)
    assert isinstance(results[0], EngineError)
    assert isinstance(results[1], Tensor)
    expected = FlowSession(MODEL, *prompt(25)).push(random_tokens(61), last=True)
    assert (results[1] - expected).abs().max() <= 5e-5


async def test_too_long_an_utterance_is_refused() -> None:
    engine = FlowEngine(MODEL, max_batch=1)
    with pytest.raises(InputError, match="15000"):
        async for _ in engine.push(FlowStream(MODEL, *prompt(0)), [0] * 7501, ListenerClock(), last=True):
            pass
