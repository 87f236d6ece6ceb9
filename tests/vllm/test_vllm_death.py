"""The engine process dies under load, or its owner does."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from deployments.speech_lm.engine import EngineDiedError
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.speech_lm.vllm_engine import VllmTokenEngine
from tests.vllm.speaking import arriving, heard, requests

pytestmark = pytest.mark.vllm

ARGS = VllmArgs(max_model_len=1024, kv_cache_memory_bytes=2**26)
OWNER = """
import sys
from pathlib import Path
import torch
from cosyvoice_core.checkpoint.settings import read_lm_config
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.speech_lm.vllm_process import set_environment

if __name__ == "__main__":
    cpu = torch.device("cpu")
    set_environment(cpu, 1)
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

    config = read_lm_config(Path(sys.argv[2]))
    args = VllmArgs(max_model_len=1024, kv_cache_memory_bytes=2**26)
    engine = VllmTokenEngine(Path(sys.argv[1]), config, device=cpu, dtype=torch.float32, max_sequences=4, args=args)
    # In one word: the engine process writes to the same place.
    print(f"engine={engine.process};", flush=True)
    sys.stdin.read()
"""


async def speak(engine: VllmTokenEngine, request: TokenRequest, log: list[int]) -> None:
    async with aclosing(engine.generate(request)) as batches:
        async for batch in batches:
            log.extend(batch.ids)


async def speak_stream(engine: VllmTokenEngine) -> None:
    text = arriving([[id_] for id_ in range(400)], 0.05)
    async with aclosing(engine.generate_stream(StreamRequest(), text)) as batches:
        async for _ in batches:
            pass


async def test_a_dead_engine_is_told_at_once_and_its_utterances_go_on_elsewhere(
    start_engine: Callable[..., VllmTokenEngine], oracle: TorchEngine
) -> None:
    engine = start_engine(ARGS, max_sequences=8)
    asked = requests(engine, 6, max_tokens=900, min_tokens=900)
    logs: list[list[int]] = [[] for _ in asked]
    try:
        talking = [asyncio.create_task(speak(engine, one, log)) for one, log in zip(asked, logs, strict=True)]
        talking.append(asyncio.create_task(speak_stream(engine)))
        for _ in range(600):
            await asyncio.sleep(0.05)
            if all(logs):
                break
        await engine.check_health()
        os.kill(engine.process, signal.SIGKILL)
        errors = await asyncio.wait_for(asyncio.gather(*talking, return_exceptions=True), 30)
        assert [type(error) for error in errors] == [EngineDiedError] * 7
        with pytest.raises(EngineDiedError):
            await engine.check_health()
        with pytest.raises(EngineDiedError):
            await asyncio.wait_for(heard(engine, asked[0]), 10)
        assert engine.asking == 0
    finally:
        engine.shutdown()
    replacement = start_engine(ARGS, max_sequences=8)
    try:
        resumed = [replace(one, history=tuple(log)) for one, log in zip(asked, logs, strict=True)]
        rest = await asyncio.gather(*(heard(replacement, one) for one in resumed))
        for one, log, (tokens, _) in zip(asked, logs, rest, strict=True):
            assert 0 < len(log) < 900
            assert [*log, *tokens] == list(oracle.generate(one))
        process = psutil.Process(replacement.process)
    finally:
        replacement.shutdown()
    gone, left = psutil.wait_procs([process], 20)
    assert (len(gone), left) == (1, [])


def test_an_engine_does_not_outlive_its_killed_owner(model_folder: Path, golden_lm: Path, tmp_path: Path) -> None:
    """SIGKILL gives the owner no chance to end it."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    settings = golden_lm / "ckpt" / "CosyVoice-BlankEN" / "config.json"
    root = Path(__file__).resolve().parents[2]
    owner = subprocess.Popen(
        [sys.executable, str(script), str(model_folder), str(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    try:
        assert owner.stdout is not None
        found = next(filter(None, (re.search(r"engine=(\d+);", line) for line in owner.stdout)))
        engine = psutil.Process(int(found[1]))
    finally:
        owner.kill()
        owner.wait(10)
    deadline = time.monotonic() + 20
    while engine.is_running() and engine.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine process is still there"
        time.sleep(0.1)
