"""Repetition-aware sampling inside live vLLM engines, with either model runner, against the torch engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cosyvoice_core.checkpoint.settings import read_lm_config
from cosyvoice_core.lm.body import Span
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.sampling import ras_probabilities
from deployments.speech_lm.conversion import ConvertedModels
from deployments.speech_lm.widening import widening_factor
from tests.vllm.ras_engine import FREE, LENGTH, NARROW, SEEDED, STREAMS, VOCABULARY, never, text_of

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
INTERPRETER = """
import triton.backends


class _Active:
    @staticmethod
    def is_active():
        return True


class _Backend:
    driver = _Active


triton.backends.backends.setdefault("cpu", _Backend)
"""
"""Makes Triton believe that there is a device for its interpreter, so that the V2 runner starts without a GPU."""


@pytest.fixture(scope="module")
def torch_engine(golden_lm: Path) -> TorchEngine:
    config = read_lm_config(golden_lm / "ckpt" / "CosyVoice-BlankEN" / "config.json")
    return TorchEngine.from_directory(golden_lm / "ckpt", config)


@pytest.fixture(scope="module", params=["V1", pytest.param("V2", marks=pytest.mark.slow)])
def decoded(request: pytest.FixtureRequest, golden_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What `ras_engine` decoded with the golden set's tiny checkpoint, float32."""
    work = tmp_path_factory.mktemp("engine")
    config = read_lm_config(golden_lm / "ckpt" / "CosyVoice-BlankEN" / "config.json")
    folder = ConvertedModels(work / "models").model(
        golden_lm / "ckpt" / "llm.pt", config, torch.float32, widening_factor(config)
    )
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    if request.param == "V2":
        (work / "sitecustomize.py").write_text(INTERPRETER)
        settings |= {
            "TRITON_INTERPRET": "1",
            "VLLM_USE_V2_MODEL_RUNNER": "1",
            "PYTHONPATH": os.pathsep.join([str(work), str(ROOT)]),
        }
    command = [sys.executable, "-m", "tests.vllm.ras_engine", str(folder), str(work / "tokens.json")]
    done = subprocess.run(
        command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, timeout=1700, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return json.loads((work / "tokens.json").read_text())


def scores_along(engine: TorchEngine, prompt: tuple[int, ...], tokens: list[int]) -> torch.Tensor:
    """Scores `(len(tokens), head_rows)` from which each token was drawn, computed in one pass."""
    ids = [*prompt, *tokens[:-1]]
    hidden = engine.body.forward(ids, [Span(engine.body.new_cache(), 0, len(ids))])
    scores = engine.body.logits(hidden[len(prompt) - 1 :]).clone()
    for id_, bias in never(None).items():
        scores[:, id_] += bias
    return scores


def test_tokens_without_a_seed_follow_the_distribution(decoded: Any, torch_engine: TorchEngine) -> None:
    """Standard scores of two sums over all steps: how likely the drawn ids were, and how many were repetitions."""
    surprise = variance = repeats = repeats_variance = 0.0
    steps = 0
    for prompt, tokens in zip(FREE, decoded["free"], strict=True):
        assert len(tokens) == LENGTH
        scores = scores_along(torch_engine, prompt, tokens)
        windows = [tokens[max(0, step - 10) : step] for step in range(LENGTH)]
        chances = ras_probabilities(scores, windows, NARROW)
        for step, (row, window) in enumerate(zip(chances, windows, strict=True)):
            assert row[tokens[step]] > 1e-20
            logs = torch.where(row > 0.0, row.log(), 0.0)
            mean = float(row @ logs)
            surprise += float(logs[tokens[step]]) - mean
            variance += float(row @ (logs - mean).square())
            repeated = float(row[list(set(window))].sum())
            repeats += (tokens[step] in window) - repeated
            repeats_variance += repeated * (1.0 - repeated)
            steps += 1
    print(f"{steps} steps: z = {surprise / variance**0.5:+.2f}, repetitions z = {repeats / repeats_variance**0.5:+.2f}")
    assert abs(surprise) < 4 * variance**0.5
    assert abs(repeats) < 4 * repeats_variance**0.5


def test_tokens_with_a_seed_are_those_of_the_torch_engine(decoded: Any, torch_engine: TorchEngine) -> None:
    """In a batch with all others, alone, and resumed from the middle."""
    expected = [list(torch_engine.generate(request)) for request in SEEDED]
    assert decoded["seeded"] == expected
    assert decoded["alone"] == expected[2:4]
    assert decoded["resumed"] == expected
    assert len({len(tokens) for tokens in expected}) > 1


def test_streams_are_those_of_the_torch_engine(decoded: Any, torch_engine: TorchEngine) -> None:
    """The window and the draws go on from turn to turn, across text and blocks that ended early."""
    for (request, count), found in zip(STREAMS, decoded["streams"], strict=True):
        number = torch_engine.add(request)
        torch_engine.extend(number, text_of(count), end=True)
        log: list[int] = []
        while torch_engine.pending:
            for event in torch_engine.step():
                log += [*event.tokens, *([VOCABULARY.fill] if event.closed_block else [])]
        assert [id_ for id_ in found if id_ != VOCABULARY.eos] == log
        assert len(log) > 30


def test_requests_without_it_are_untouched(decoded: Any, torch_engine: TorchEngine) -> None:
    tokens = decoded["greedy"]
    assert scores_along(torch_engine, FREE[3], tokens).argmax(1).tolist() == tokens


def test_bad_requests_fail_alone(decoded: Any) -> None:
    """That the engine went on is what the other tests show: it decoded more after these."""
    penalty, scored, args = decoded["errors"]
    assert "repetition_penalty" in penalty
    assert "prompt_logprobs" in scored
    assert "lacks" in args
