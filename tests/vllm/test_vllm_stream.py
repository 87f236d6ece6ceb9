"""Text that arrives while it is spoken, through vLLM's own resumable requests."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest
from deployments.messages import Finish
from deployments.speech_lm.vllm_engine import VllmTokenEngine
from tests.vllm.speaking import arriving, cut, heard, heard_stream, requests

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

TEXT = [3, 14, 59, 26, 53, 89, 79, 32, 84, 62, 64, 33, 83, 27, 95, 28, 84, 19, 71, 69, 39, 93, 75]


def stream(seed: int = 5, **changes: object) -> StreamRequest:
    prompt = ((10, 20, 30, 40, 50, 60, 70), tuple(range(100, 2100, 50)))
    return replace(StreamRequest(*prompt, max_ratio=4.0, seed=seed), **changes)  # type: ignore[arg-type]


def by_torch(oracle: TorchEngine, request: StreamRequest, text: list[int]) -> list[int]:
    """The log of a stream whose text is there at once."""
    number = oracle.add(request)
    oracle.extend(number, text, end=True)
    log: list[int] = []
    while oracle.pending:
        for event in oracle.step():
            assert event.error is None
            log += [*event.tokens, *([oracle.vocabulary.fill] if event.closed_block else [])]
    return log


@pytest.mark.golden
@pytest.mark.parametrize("seed", range(4))
async def test_corrected_traces_of_the_original(engine: VllmTokenEngine, golden_lm: Path, seed: int) -> None:
    """Exact for any portions: whole, token by token, and random ones with empty ones among them."""
    chance = random.Random(seed)
    for name, case in json.loads((golden_lm / "lm_bistream.json").read_text()).items():
        text = case["text"]
        portions = [[text], [[id_] for id_ in text], cut(text, chance), cut(text, chance)][seed]
        request = StreamRequest(tuple(case["prompt_text"]), tuple(case["prompt_speech"]), greedy=True)
        log, finish = await heard_stream(engine, request, portions, pause_s=0.01 * (seed % 2))
        trace = case["corrected"]
        sampled = [event["token"] for event in trace["events"] if not event["forced"]]
        ended = trace["ended_by"] == "eos"
        assert log == (sampled[:-1] if ended else sampled), name
        assert [id_ for id_ in log if id_ != engine.vocabulary.fill] == trace["yielded"], name
        assert finish is (Finish.END_OF_SPEECH if ended else Finish.LENGTH), name
    assert engine.unfinished == 0


async def test_sampled_streams_are_the_torch_engines_and_company_does_not_matter(
    engine: VllmTokenEngine, oracle: TorchEngine
) -> None:
    chance = random.Random(1)
    expected = [by_torch(oracle, stream(seed), TEXT) for seed in range(6)]
    together = await asyncio.gather(
        *(heard_stream(engine, stream(seed), cut(TEXT, chance), 0.02) for seed in range(6)),
        *(heard(engine, request) for request in requests(engine, 4)),
    )
    assert [log for log, _ in together[:6]] == expected


async def test_bounds_of_length_hold(engine: VllmTokenEngine, oracle: TorchEngine) -> None:
    for ratios in ({"min_ratio": 3.0, "max_ratio": 3.0}, {"min_ratio": 1.0, "max_ratio": 2.0}):
        request = stream(3, **ratios)
        log, finish = await heard_stream(engine, request, [TEXT])
        assert log == by_torch(oracle, request, TEXT)
        spoken = sum(id_ != engine.vocabulary.fill for id_ in log)
        assert int(ratios["min_ratio"] * len(TEXT)) <= spoken <= int(ratios["max_ratio"] * len(TEXT))
        assert finish is Finish.LENGTH or spoken < int(ratios["max_ratio"] * len(TEXT))


async def test_a_stream_that_waits_for_text_gives_its_place_back_and_loses_nothing(
    engine: VllmTokenEngine, oracle: TorchEngine
) -> None:
    go_on = asyncio.Event()

    async def text() -> AsyncIterator[tuple[int, ...]]:
        yield tuple(TEXT[:12])
        await go_on.wait()
        yield tuple(TEXT[12:])

    log: list[int] = []

    async def listen() -> None:
        async with aclosing(engine.generate_stream(stream(), text())) as batches:
            async for batch in batches:
                log.extend([*batch.ids, *([engine.vocabulary.fill] if batch.closed_block else [])])

    listening = asyncio.create_task(listen())
    for _ in range(600):
        await asyncio.sleep(0.05)
        if log and not engine.unfinished:
            break
    assert engine.unfinished == 0
    heard_before = len(log)
    go_on.set()
    await asyncio.wait_for(listening, 30)
    assert 0 < heard_before < len(log)
    assert log == by_torch(oracle, stream(), TEXT)


async def test_goes_on_from_any_token_of_its_log(engine: VllmTokenEngine) -> None:
    log, finish = await heard_stream(engine, stream(), [TEXT])
    for known in (1, 15, 16, len(log) // 2, len(log) - 1, len(log)):
        again = await heard_stream(engine, stream(history=tuple(log[:known])), cut(TEXT, random.Random(known)))
        assert again == (log[known:], finish)


async def test_a_text_that_never_came_is_finished_without_tokens(engine: VllmTokenEngine) -> None:
    assert await heard_stream(engine, stream(), []) == ([], Finish.LENGTH)


async def test_leaving_a_stream_that_waits_frees_it_at_once(engine: VllmTokenEngine) -> None:
    async def text() -> AsyncIterator[tuple[int, ...]]:
        yield tuple(TEXT[:12])
        await asyncio.Event().wait()

    for _ in range(5):
        batches = engine.generate_stream(stream(), text())
        assert (await anext(batches)).ids
        assert engine.unfinished == 1
        await batches.aclose()
        assert engine.unfinished == 0


async def test_what_is_wrong_with_a_text_ends_that_stream_alone(engine: VllmTokenEngine) -> None:
    rows, speech = engine.vocabulary.text_rows, engine.vocabulary.speech_tokens

    async def breaks() -> AsyncIterator[tuple[int, ...]]:
        yield tuple(TEXT[:12])
        raise ConnectionResetError("the writer is gone")

    wrong = [
        (heard_stream(engine, stream(), [TEXT[:12], [rows]], 0.01), InputError),
        (heard_stream(engine, stream(), [TEXT[:12], [-1]], 0.01), InputError),
        (heard_stream(engine, stream(), [[1] * 1100]), InputError),
        (heard_stream(engine, stream(), [[1] * 500, [1] * 500]), InputError),
        (heard_stream(engine, stream(history=(speech,)), [TEXT]), InputError),
        (heard_stream(engine, StreamRequest(tuple(range(600)), (1,) * 600), [TEXT]), InputError),
        (heard_stream(engine, stream(history=(1, 2, engine.vocabulary.fill)), [[1, 2]]), EngineError),
        (heard_stream(engine, stream(history=(1,) * 50, max_ratio=2.0), [[1, 2]]), EngineError),
    ]
    for listening, error in wrong:
        with pytest.raises(error):
            await listening
    with pytest.raises(ConnectionResetError):
        async for _ in engine.generate_stream(stream(), breaks()):
            pass
    assert engine.unfinished == 0
    assert (await heard_stream(engine, stream(), [TEXT]))[0]


async def test_text_is_read_no_further_when_the_listener_leaves(engine: VllmTokenEngine) -> None:
    source = arriving([[id_] for id_ in TEXT * 10], 0.01)
    batches = engine.generate_stream(stream(), source)
    await anext(batches)
    await batches.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(source)
