"""Scores that are not numbers end their own utterance with an error, and nobody else's."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from cosyvoice_core.checkpoint.settings import read_lm_config
from cosyvoice_core.errors import EngineError
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from deployments.speech_lm.vllm_args import VllmArgs
from tests.vllm.speaking import heard, heard_stream, requests

if TYPE_CHECKING:
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

POISON = 499
"""A text id whose row of the input table is made NaN."""


@pytest.fixture(scope="module")
def poisoned(
    golden_lm: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmTokenEngine]:
    """An engine with few blocks, so that those of a broken utterance are soon another's."""
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

    config = read_lm_config(golden_lm / "ckpt" / "CosyVoice-BlankEN" / "config.json")
    folder = tmp_path_factory.mktemp("poisoned") / "model"
    shutil.copytree(model_folder, folder)
    weights = load_file(folder / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("embed_tokens.weight"))
    rows = len(weights[name])
    weights[name][rows - config.text_rows + POISON % config.text_rows] = torch.nan
    save_file(weights, folder / "model.safetensors")
    cpu = torch.device("cpu")
    args = VllmArgs(max_model_len=256, kv_cache_memory_bytes=2**20)
    running = VllmTokenEngine(folder, config, device=cpu, dtype=torch.float32, max_sequences=8, args=args)
    yield running
    running.shutdown()


def broken(engine: VllmTokenEngine, sound: TokenRequest) -> TokenRequest:
    vocabulary = engine.vocabulary
    poison = vocabulary.text_offset + POISON % vocabulary.text_rows
    return replace(sound, prompt_ids=(sound.prompt_ids[0], poison, *sound.prompt_ids[2:]))


def without_poison(engine: VllmTokenEngine, count: int) -> list[TokenRequest]:
    vocabulary = engine.vocabulary
    poison = vocabulary.text_offset + POISON % vocabulary.text_rows
    return [
        replace(one, prompt_ids=tuple(id_ - 1 if id_ == poison else id_ for id_ in one.prompt_ids))
        for one in requests(engine, count)
    ]


@pytest.mark.parametrize("greedy", [False, True])
async def test_a_broken_utterance_fails_alone(poisoned: VllmTokenEngine, oracle: TorchEngine, greedy: bool) -> None:
    sound = [replace(one, greedy=greedy) for one in without_poison(poisoned, 6)]
    expected = [list(oracle.generate(request)) for request in sound]
    for _ in range(3):
        asked = [one for request in sound for one in (request, broken(poisoned, request))]
        found = await asyncio.gather(*(heard(poisoned, request) for request in asked), return_exceptions=True)
        assert [tokens for tokens, _ in found[::2]] == expected
        for error in found[1::2]:
            assert isinstance(error, EngineError)
            assert "not numbers" in str(error)
    assert poisoned.unfinished == poisoned.asking == 0


async def test_so_does_a_broken_stream(poisoned: VllmTokenEngine) -> None:
    text = list(range(20))
    request = StreamRequest(max_ratio=4.0, min_ratio=2.0, seed=1)
    expected = await heard_stream(poisoned, request, [text])
    bad = [*text[:12], POISON % poisoned.vocabulary.text_rows, *text[12:]]
    error, found = await asyncio.gather(
        heard_stream(poisoned, request, [bad]), heard_stream(poisoned, request, [text]), return_exceptions=True
    )
    assert isinstance(error, EngineError)
    assert found == expected
    await poisoned.check_health()
