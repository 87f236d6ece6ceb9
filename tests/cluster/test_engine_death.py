"""The vLLM engine process of the only language model replica is killed while it serves."""

from __future__ import annotations

import asyncio
import os
import signal

import numpy as np
import psutil
import pytest
from ray import serve

from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.speech_lm.vllm_process import vllm_installed
from tests.cluster.test_service import LONG, running, stage_info, wait_until

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(not vllm_installed(), reason="the engine is not vLLM")]

LISTENERS = 6
BY_HANDLE = {"voice": "demo_male", "realtime": False}


async def heard(client: CosyVoiceClient, seed: int, begun: asyncio.Event | None = None) -> np.ndarray:
    async with client.speak(LONG, seed=seed, **BY_HANDLE) as stream:
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            if begun is not None:
                begun.set()
    return np.concatenate(chunks)


async def heard_written(client: CosyVoiceClient, seed: int) -> np.ndarray:
    async with client.speak_stream(LONG.split(" "), seed=seed, **BY_HANDLE) as stream:
        return np.concatenate([chunk async for chunk in stream])


async def test_a_killed_engine_is_replaced_and_nobody_loses_a_word(
    service: LocalService, client: CosyVoiceClient
) -> None:
    """Utterances are at all points: heard in part, written in part, and some come while there is no engine at all."""
    expected = [await heard(client, seed) for seed in range(LISTENERS)]
    expected_written = await heard_written(client, 3)

    replica = psutil.Process((await asyncio.to_thread(stage_info, service, "SpeechLM")).process)
    engines = [child for child in replica.children(recursive=True) if "EngineCore" in "".join(child.cmdline())]
    assert engines, [child.cmdline() for child in replica.children(recursive=True)]
    begun = [asyncio.Event() for _ in range(3)]
    listeners = [asyncio.create_task(heard(client, seed, begun[seed])) for seed in range(3)]
    writer = asyncio.create_task(heard_written(client, 3))
    await asyncio.gather(*(event.wait() for event in begun))
    os.kill(engines[0].pid, signal.SIGKILL)
    listeners += [asyncio.create_task(heard(client, seed)) for seed in range(3, LISTENERS)]

    found = await asyncio.wait_for(asyncio.gather(*listeners, writer), 400)
    for actual, wanted in zip(found, [*expected, expected_written], strict=True):
        assert actual.shape == wanted.shape
        assert np.abs(actual - wanted).max() < 1e-3
    assert (await asyncio.to_thread(stage_info, service, "SpeechLM")).process != replica.pid
    _gone, left = await asyncio.to_thread(psutil.wait_procs, [replica, *engines], 20)
    assert left == [], "the old replica or its engine is still there"
    await asyncio.to_thread(wait_until, lambda: serve.status().applications[service.app_name].status == "RUNNING", 60)
    await asyncio.to_thread(wait_until, lambda: not any(running(service).values()), 10)
