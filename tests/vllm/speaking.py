"""What the tests of this folder ask for, and how they listen."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from deployments.messages import Finish

if TYPE_CHECKING:
    from deployments.speech_lm.vllm_engine import VllmTokenEngine


def requests(engine: VllmTokenEngine, count: int, **changes: object) -> list[TokenRequest]:
    """Requests of different lengths, texts and seeds."""
    vocabulary, chance = engine.vocabulary, random.Random(count)
    asked = []
    for seed in range(count):
        text = [chance.randrange(vocabulary.text_rows) for _ in range(chance.randrange(4, 30))]
        speech = [chance.randrange(vocabulary.speech_tokens) for _ in range(chance.randrange(0, 40))]
        prompt = (vocabulary.sos, *vocabulary.text(text), vocabulary.task, *speech)
        fields: dict[str, object] = {"max_tokens": 60, "min_tokens": 40, "seed": seed, **changes}
        asked.append(TokenRequest(prompt, **fields))  # type: ignore[arg-type]
    return asked


async def heard(engine: VllmTokenEngine, request: TokenRequest) -> tuple[list[int], Finish]:
    """All tokens of a request and why it ended."""
    tokens: list[int] = []
    async with aclosing(engine.generate(request)) as batches:
        async for batch in batches:
            tokens += batch.ids
    assert batch.finish is not None
    return tokens, batch.finish


async def heard_stream(
    engine: VllmTokenEngine, request: StreamRequest, portions: Iterable[Sequence[int]], pause_s: float = 0.0
) -> tuple[list[int], Finish]:
    """The token log of a stream, fill ids included, and why it ended; portions come `pause_s` apart."""
    log: list[int] = []
    async with aclosing(engine.generate_stream(request, arriving(portions, pause_s))) as batches:
        async for batch in batches:
            log += [*batch.ids, *([engine.vocabulary.fill] if batch.closed_block else [])]
    assert batch.finish is not None
    return log, batch.finish


async def arriving(portions: Iterable[Sequence[int]], pause_s: float = 0.0) -> AsyncIterator[tuple[int, ...]]:
    for portion in portions:
        yield tuple(portion)
        await asyncio.sleep(pause_s)


def cut(ids: Sequence[int], chance: random.Random) -> list[list[int]]:
    """`ids` in portions of random size, empty ones among them."""
    portions, rest = [], list(ids)
    while rest:
        size = chance.randrange(0, 8)
        portions.append(rest[:size])
        del rest[:size]
    return portions
