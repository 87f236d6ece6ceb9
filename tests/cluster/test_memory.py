"""Replicas do not grow with the number of utterances, whatever their lengths."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import numpy as np
from ray import serve

from cosyvoice_core.synthesis import Synthesizer
from cosyvoice_core.utterance import Utterance
from deployments.local import LocalService
from deployments.messages import StageInfo, UtteranceTask

STAGES = ("FlowDecoder", "Vocoder")
ROUNDS = 10
UTTERANCES = 16
WARM_UP = 3


def resident_mb(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


async def test_utterances_of_ever_changing_lengths_leave_no_memory_behind(
    service: LocalService, demo_checkpoint: Path
) -> None:
    """Tokens are given, as in a voice conversion, so that flow decoder and vocoder have all the work.

    Memory is read at rest, after each round; what is asked for is no growth over all rounds behind the first ones,
    which fill caches and pools.
    """
    synthesizer = Synthesizer.from_pretrained(str(demo_checkpoint))
    voice, chance = synthesizer.voice("demo_deep"), random.Random(7)
    codes = synthesizer.config.flow.vocab_size
    vocoder = serve.get_deployment_handle("Vocoder", service.app_name)
    places = asyncio.Semaphore(2)

    def utterance(number: int) -> Utterance:
        tokens = np.array([chance.randrange(codes) for _ in range(chance.randint(20, 110))], np.int32)
        return synthesizer.planner.conversion(tokens, voice, seed=number)

    async def speak(number: int) -> None:
        async with places:
            task = UtteranceTask(f"memory-{number}", utterance(number))
            async for _ in vocoder.options(method_name="synthesize", stream=True, _by_reference=False).remote(task):
                pass

    processes: dict[str, int] = {}
    for stage in STAGES:
        info: StageInfo = await serve.get_deployment_handle(stage, service.app_name).info.remote()
        processes[stage] = info.process
    sizes: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for round_ in range(ROUNDS):
        await asyncio.gather(*(speak(round_ * UTTERANCES + number) for number in range(UTTERANCES)))
        # A trim follows the end of a call by a second and takes milliseconds; nothing says when it is done.
        await asyncio.sleep(2)
        for stage, process in processes.items():
            sizes[stage].append(resident_mb(process))
    growth = {stage: np.polyfit(range(ROUNDS - WARM_UP), sizes[stage][WARM_UP:], 1)[0] for stage in STAGES}
    print(sizes, growth)
    assert all(per_round < 1.5 for per_round in growth.values()), (growth, sizes)
