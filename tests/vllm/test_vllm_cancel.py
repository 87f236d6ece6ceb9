"""Listeners that leave at any moment leave nothing behind."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import aclosing
from typing import Any

import psutil
import pytest

from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.speech_lm.vllm_engine import VllmTokenEngine
from deployments.speech_lm.vllm_process import engine_arguments
from tests.vllm.census import census
from tests.vllm.speaking import arriving, heard, requests

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

ROUND, SETTLING, ROUNDS = 1000, 3, 4
AT_ONCE = 24


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., VllmTokenEngine]) -> Iterator[VllmTokenEngine]:
    """Counts its own objects. Pages of the KV cache are few, so all are touched early, and oneDNN keeps no kernels,
    which it does by the shape of batches, up to 1024 of them."""

    def arguments(*given: Any) -> dict[str, Any]:
        return {**engine_arguments(*given), "worker_extension_cls": "tests.vllm.census.Census"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "0")
        patch.setattr("deployments.speech_lm.vllm_process.engine_arguments", arguments)
        running = start_engine(VllmArgs(max_model_len=1024, kv_cache_memory_bytes=2**23))
    yield running
    running.shutdown()


async def held(engine: VllmTokenEngine) -> dict[str, int]:
    """Python objects and blocks of memory, and resident bytes, of this process and of the engine's."""
    (there,) = await engine._llm.collective_rpc("census")
    here = census()
    return {
        "objects here": here[0],
        "objects in the engine": there[0],
        "blocks here": here[1],
        "blocks in the engine": there[1],
        "bytes here": psutil.Process().memory_info().rss,
        "bytes in the engine": psutil.Process(engine.process).memory_info().rss,
    }


async def listen_a_while(engine: VllmTokenEngine, number: int, chance: random.Random) -> None:
    """One request, complete or streamed, that is left after some batches, by a deadline or by cancelling the task."""
    (request,) = requests(engine, 1, max_tokens=40, min_tokens=40, seed=number)
    text = [[chance.randrange(500)] for _ in range(12)]
    batches = engine.generate(request) if number % 2 else engine.generate_stream(StreamRequest(), arriving(text, 0.001))

    async def listen(most: int) -> None:
        async with aclosing(batches):
            async for _ in batches:
                most -= 1
                if not most:
                    return

    way = number % 3
    task = asyncio.create_task(listen(chance.randrange(1, 30) if way == 0 else 1000))
    if way == 1:
        await asyncio.sleep(chance.random() * 0.3)
        task.cancel()
    elif way == 2:
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() or task.exception() is None


async def test_requests_left_at_random_leave_nothing(engine: VllmTokenEngine, oracle: TorchEngine) -> None:
    chance = random.Random(0)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with places:
            await listen_a_while(engine, number, chance)

    async def rounds(count: int) -> None:
        for _ in range(count):
            await asyncio.gather(*(one(number) for number in range(ROUND)))
            assert engine.unfinished == 0
            assert engine.asking == 0

    await rounds(SETTLING)
    before = await held(engine)
    await rounds(ROUNDS)
    grown = {name: (value - before[name]) / (ROUNDS * ROUND) for name, value in (await held(engine)).items()}
    print(grown)
    # Any one object per request would be 1. Resident memory also moves by megabytes as heaps are cut up.
    assert max(value for name, value in grown.items() if "objects" in name or "blocks" in name) < 0.5, grown
    assert max(value for name, value in grown.items() if "bytes" in name) < 8192, grown
    tasks = [task for task in asyncio.all_tasks() if "ArrivingText" in repr(task) or "handle_inputs" in repr(task)]
    assert tasks == []
    for request in requests(engine, 2):
        assert (await heard(engine, request))[0] == list(oracle.generate(request))


async def test_a_place_is_free_at_once(engine: VllmTokenEngine) -> None:
    for request in requests(engine, 5, max_tokens=900, min_tokens=900):
        batches = engine.generate(request)
        await anext(batches)
        assert engine.unfinished == 1
        await batches.aclose()
        assert engine.unfinished == 0
