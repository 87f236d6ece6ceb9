"""The torch engine driven from an event loop: text in portions, pauses that cost nothing, slots that come free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from deployments.speech_lm.torch_engine import TorchTokenEngine
from tests.golden_tests.lm_models import read_config

TEXT = (3, 14, 59, 26, 53, 89, 79, 32, 84, 62, 64, 33)
REQUEST = StreamRequest((10, 20, 30), tuple(range(100, 900, 40)), max_ratio=4.0, seed=3)


@pytest.fixture(scope="module")
def model(golden_lm: Path) -> TorchEngine:
    config = read_config(golden_lm)
    return TorchEngine.from_directory(golden_lm / "ckpt", config)


def alone(model: TorchEngine, request: StreamRequest, text: tuple[int, ...]) -> list[int]:
    number = model.add(request)
    model.extend(number, text, end=True)
    tokens: list[int] = []
    while model.pending:
        tokens += [id_ for event in model.step() for id_ in event.tokens]
    return tokens


async def arriving(*portions: tuple[int, ...]) -> AsyncIterator[tuple[int, ...]]:
    for portion in portions:
        yield portion
        await asyncio.sleep(0.01)


async def heard(engine: TorchTokenEngine, request: StreamRequest, text: AsyncIterator[tuple[int, ...]]) -> list[int]:
    return [id_ async for batch in engine.generate_stream(request, text) for id_ in batch.ids]


async def free(engine: TorchTokenEngine, model: TorchEngine) -> None:
    for _ in range(1000):
        if not model.pending:
            break
        await asyncio.sleep(0.005)
    assert model.pending == 0
    await engine.check_health()


async def test_portions_give_what_the_whole_text_gives(model: TorchEngine) -> None:
    expected = alone(model, REQUEST, TEXT)
    engine = TorchTokenEngine(model, 4)
    for cuts in ((TEXT,), (TEXT[:1], TEXT[1:6], (), TEXT[6:]), tuple((id_,) for id_ in TEXT)):
        assert await heard(engine, REQUEST, arriving(*cuts)) == expected
    assert model.pending == 0


async def test_a_text_that_never_comes_gives_nothing(model: TorchEngine) -> None:
    assert await heard(TorchTokenEngine(model, 1), REQUEST, arriving()) == []


async def test_a_paused_text_costs_no_steps_and_does_not_hold_up_others(model: TorchEngine) -> None:
    expected = alone(model, REQUEST, TEXT)
    engine = TorchTokenEngine(model, 4)
    steps = 0
    step = model.step

    def counted() -> list:
        nonlocal steps
        steps += 1
        return step()

    go_on = asyncio.Event()

    async def paused() -> AsyncIterator[tuple[int, ...]]:
        yield TEXT[:4]
        await go_on.wait()
        yield TEXT[4:]

    reading = asyncio.create_task(heard(engine, REQUEST, paused()))
    await asyncio.sleep(0.2)
    model.step = counted  # type: ignore[method-assign]
    try:
        await asyncio.sleep(0.3)
        assert (steps, model.pending) == (0, 1)
        other = [id_ async for batch in engine.generate(TokenRequest((1, 2), max_tokens=5)) for id_ in batch.ids]
        assert len(other) <= 5
        assert 0 < steps <= 8
    finally:
        model.step = step  # type: ignore[method-assign]
    go_on.set()
    assert await reading == expected


async def test_leaving_frees_the_slot_and_stops_reading_text(model: TorchEngine) -> None:
    expected = alone(model, REQUEST, TEXT)
    engine = TorchTokenEngine(model, 1)
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[tuple[int, ...]]:
        try:
            yield TEXT
            await asyncio.Event().wait()
        finally:
            closed.set()

    for _ in range(3):
        closed.clear()
        async with aclosing(engine.generate_stream(REQUEST, endless())) as batches:
            await anext(batches)
            assert model.pending == 1
        assert closed.is_set()
        await free(engine, model)
    assert await heard(engine, REQUEST, arriving(TEXT)) == expected


async def test_text_that_breaks_off_ends_its_own_sequence_only(model: TorchEngine) -> None:
    engine = TorchTokenEngine(model, 4)

    async def broken() -> AsyncIterator[tuple[int, ...]]:
        yield TEXT
        raise InputError("input", "no text came")

    async def unknown() -> AsyncIterator[tuple[int, ...]]:
        yield (10**7,)

    good = asyncio.create_task(heard(engine, REQUEST, arriving(TEXT[:5], TEXT[5:])))
    with pytest.raises(InputError, match="no text came"):
        await heard(engine, REQUEST, broken())
    with pytest.raises(InputError):
        await heard(engine, REQUEST, unknown())
    tokens = await good
    await free(engine, model)
    assert tokens == alone(model, REQUEST, TEXT)


async def test_streams_and_complete_texts_share_the_batch(model: TorchEngine) -> None:
    requests = [StreamRequest((10, 20, 30), (), max_ratio=4.0, seed=seed) for seed in range(4)]
    expected = [alone(model, request, TEXT) for request in requests]
    engine = TorchTokenEngine(model, 3)
    found = await asyncio.gather(*(heard(engine, request, arriving(TEXT[:7], TEXT[7:])) for request in requests))
    assert found == expected
