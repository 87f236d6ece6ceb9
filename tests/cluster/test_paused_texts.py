"""Texts that pause take places of the language model; so many, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from deployments.args import LMArgs
from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.mailbox import OverloadedError
from tests.cluster.test_service import SENTENCE, running, stage_info, wait_until

MOST = LMArgs().growing_texts


async def halting(go_on: asyncio.Event) -> AsyncIterator[str]:
    yield "Good mor"
    await go_on.wait()
    yield "ning."


async def test_too_many_texts_at_once_are_refused_and_starve_nobody(
    service: LocalService, client: CosyVoiceClient
) -> None:
    go_on = asyncio.Event()
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(client.speak_stream(halting(go_on), voice="demo_female", realtime=False))
            for _ in range(MOST)
        ]
        await asyncio.to_thread(wait_until, lambda: stage_info(service, "SpeechLM").running == MOST, 60)
        async with client.speak_stream(halting(asyncio.Event()), voice="demo_female", realtime=False) as one_more:
            with pytest.raises(OverloadedError, match=f"{MOST} texts"):
                await anext(aiter(one_more))
        async with client.speak(SENTENCE, voice="demo_female", realtime=False) as complete:
            assert sum([len(chunk) async for chunk in complete]) > 24000
        go_on.set()

        async def length(stream: AsyncIterator[object]) -> int:
            return sum([len(chunk) async for chunk in stream])  # type: ignore[arg-type]

        assert min(await asyncio.gather(*(length(aiter(stream)) for stream in streams))) > 2400
        async with client.speak_stream([SENTENCE], voice="demo_female", realtime=False) as again:
            assert await length(aiter(again)) > 24000
    await asyncio.to_thread(wait_until, lambda: not any(running(service).values()), 10)
