"""Signs of life in the streams between stages, by which a lost one is told from a slow one.

A process that is killed closes its connections. A machine without power or network does not: nothing comes any more,
which looks like a stage that waits for its turn. So a stage that has nothing to send says every second that it is
there, and who hears nothing at all for several seconds goes elsewhere. Knows neither stages nor what they send.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

EVERY_S = 1.0
"""Between signs of life while there is nothing else to send."""

_TAKEN = 3
"""So many times the silence allowed later is allowed until a call is taken: a replica may have to start for it."""

Item = TypeVar("Item")
Stage = TypeVar("Stage")
P = ParamSpec("P")


class SilentError(RuntimeError):
    """Not even a sign of life came from the other side."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """The stage is there and has your call."""


def pulsing(
    method: Callable[Concatenate[Stage, P], AsyncIterator[Item]],
) -> Callable[Concatenate[Stage, P], AsyncGenerator[Item | Pulse, None]]:
    """A stage's stream that gives signs of life: one at its start, and then while it has nothing else to give."""

    @functools.wraps(method)
    async def stream(self: Stage, /, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[Item | Pulse, None]:
        async with aclosing(with_pulse(method(self, *args, **kwargs), EVERY_S)) as items:
            async for item in items:
                yield item

    return stream


async def with_pulse(items: AsyncIterator[Item], every_s: float) -> AsyncGenerator[Item | Pulse, None]:
    """`items`, and a `Pulse` first and whenever none came for so long. Closes `items` when it is closed."""
    waiting: asyncio.Task[Item] | None = None
    try:
        yield Pulse()
        while True:
            waiting = asyncio.create_task(_next(items))
            while not (await asyncio.wait({waiting}, timeout=every_s))[0]:
                yield Pulse()
            try:
                item = waiting.result()
            except StopAsyncIteration:
                return
            yield item
    finally:
        if waiting is not None and not waiting.done():
            waiting.cancel()
            await asyncio.wait({waiting})
        if isinstance(items, AsyncGenerator):
            await items.aclose()


async def without_pulse(items: AsyncIterator[Item | Pulse], silence_s: float) -> AsyncIterator[Item]:
    """What was given to `with_pulse`. Raises SilentError when nothing came for so long, not even a sign of life."""
    limit_s = _TAKEN * silence_s
    while True:
        try:
            item = await _within(anext(items), limit_s)
        except StopAsyncIteration:
            return
        limit_s = silence_s
        if not isinstance(item, Pulse):
            yield item


async def _next(items: AsyncIterator[Item]) -> Item:
    return await anext(items)


async def _within(item: Awaitable[Item], limit_s: float) -> Item:
    try:
        async with asyncio.timeout(limit_s) as limit:
            return await item
    except TimeoutError:
        if limit.expired():
            raise SilentError(f"no sign of life within {limit_s:g} s") from None
        raise
