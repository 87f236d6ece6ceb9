"""Too little room in the engine: utterances are thrown out and come back, and sound the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from time import monotonic
from typing import Any

import pytest
from vllm.v1.metrics.loggers import StatLoggerBase

from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from deployments.messages import Finish
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.speech_lm.vllm_engine import VllmTokenEngine
from tests.vllm.speaking import arriving, heard, heard_stream, requests

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

PREEMPTED: list[int] = []
TEXT = [3, 14, 59, 26, 53, 89, 79, 32, 84, 62, 64, 33, 83, 27, 95, 28, 84, 19, 71, 69, 39, 93, 75]


class Preemptions(StatLoggerBase):
    """Counts what vLLM throws out to make room."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        PREEMPTED.clear()

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_more: Any, **_named: Any) -> None:
        if iteration_stats is not None and iteration_stats.num_preempted_reqs:
            PREEMPTED.append(iteration_stats.num_preempted_reqs)

    def log_engine_initialized(self) -> None:
        pass


@pytest.fixture(scope="module")
def small(start_engine: Callable[..., VllmTokenEngine]) -> Iterator[VllmTokenEngine]:
    """Four places, and memory for little more than one long utterance."""
    args = VllmArgs(max_model_len=512, kv_cache_memory_bytes=9 * 2**17, idle_release_s=0.3, yield_lead_s=0.5)
    running = start_engine(args, max_sequences=4, stat_loggers=[Preemptions])
    yield running
    running.shutdown()


async def test_memory_that_runs_out_changes_nothing(small: VllmTokenEngine, oracle: TorchEngine) -> None:
    small.places.lead_s = 1e9
    asked = requests(small, 6, max_tokens=200, min_tokens=200)
    expected = [list(oracle.generate(request)) for request in asked]
    found = await asyncio.gather(*(heard(small, request) for request in asked))
    assert [tokens for tokens, _ in found] == expected
    assert sum(PREEMPTED) > 0


async def test_nor_does_it_change_streams(small: VllmTokenEngine) -> None:
    small.places.lead_s = 1e9
    streams = [StreamRequest(max_ratio=8.0, min_ratio=8.0, seed=seed) for seed in range(3)]
    alone = [await heard_stream(small, request, [TEXT]) for request in streams]
    PREEMPTED.clear()
    (long,) = requests(small, 1, max_tokens=400, min_tokens=400)
    found = await asyncio.gather(
        heard(small, long), *(heard_stream(small, request, [TEXT[:9], TEXT[9:]], 0.1) for request in streams)
    )
    assert list(found[1:]) == alone
    assert sum(PREEMPTED) > 0


async def first_token_s(engine: VllmTokenEngine, request: TokenRequest) -> float:
    began = monotonic()
    async with aclosing(engine.generate(request)) as batches:
        await anext(batches)
    return monotonic() - began


async def test_a_new_utterance_takes_the_place_of_one_far_ahead(small: VllmTokenEngine, oracle: TorchEngine) -> None:
    """With all places taken by long ones; once with places that never change hands, once with ours."""
    long = requests(small, 4, max_tokens=420, min_tokens=420)
    (new,) = requests(small, 1)
    waited = []
    for lead_s in (1e9, 0.5):
        small.places.lead_s = lead_s
        talking = [asyncio.create_task(heard(small, request)) for request in long]
        await asyncio.sleep(0.5)
        waited.append(await first_token_s(small, new))
        assert not all(task.done() for task in talking)
        found = await asyncio.gather(*talking)
    assert [tokens for tokens, _ in found] == [list(oracle.generate(request)) for request in long]
    assert waited[1] < waited[0] / 2, waited
    assert small.asking == 0


async def test_streams_make_room_in_the_middle_of_a_turn_and_while_they_wait_for_text(
    small: VllmTokenEngine, oracle: TorchEngine
) -> None:
    """All places are taken by streams: two with much to say yet, two whose text stands still."""
    small.places.lead_s = 0.5
    go_on = asyncio.Event()

    async def halting() -> AsyncIterator[tuple[int, ...]]:
        yield tuple(TEXT[:12])
        await go_on.wait()
        yield tuple(TEXT[12:])

    long = [StreamRequest(max_ratio=18.0, min_ratio=18.0, seed=seed) for seed in range(2)]
    halted = [StreamRequest(max_ratio=4.0, seed=seed) for seed in range(2, 4)]
    expected = [(await heard_stream(small, request, [TEXT])) for request in (*long, *halted)]
    asked = requests(small, 8, max_tokens=60, min_tokens=60)

    small._idle_s, idle_s = 1e9, small._idle_s
    try:
        streams = [asyncio.create_task(log_of(small, request, halting())) for request in halted]
        await until(lambda: len(small.places.resting) == 2)
        streams = [asyncio.create_task(log_of(small, request, arriving([TEXT]))) for request in long] + streams
        await until(lambda: small.asking == 4)
        found = await asyncio.wait_for(asyncio.gather(*(heard(small, request) for request in asked)), 120)
        assert [tokens for tokens, _ in found] == [list(oracle.generate(request)) for request in asked]
        assert small.asking <= 2, "both streams without text have given their places back"
        go_on.set()
        assert [await stream for stream in streams] == expected
    finally:
        small._idle_s = idle_s
    assert small.asking == small.unfinished == 0


async def until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("the condition did not come true in a minute")


async def log_of(
    engine: VllmTokenEngine, request: StreamRequest, text: AsyncIterator[tuple[int, ...]]
) -> tuple[list[int], Finish | None]:
    """As `heard_stream`, of a text that comes when it wants."""
    log: list[int] = []
    finish = None
    async with aclosing(engine.generate_stream(request, text)) as batches:
        async for batch in batches:
            log += [*batch.ids, *([engine.vocabulary.fill] if batch.closed_block else [])]
            finish = batch.finish
    return log, finish
