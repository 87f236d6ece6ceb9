"""Padded models compute what the narrow ones do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.lm.body import SpeechBody
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.request import TokenRequest
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.speech_lm.widening import widened, widened_config, widening_factor
from tests.golden_tests.lm_models import read_config

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_widened_model_says_the_same(golden_lm: Path, factor: int) -> None:
    narrow = read_config(golden_lm)
    vocabulary = SpeechVocabulary.cosyvoice2(narrow.text_rows, narrow.speech_tokens)
    merged = merge(read_state(golden_lm / "ckpt" / "llm.pt"), narrow, vocabulary)
    spoken = []
    for config, tensors in (
        (narrow, merged),
        (widened_config(narrow, factor), widened(merged, narrow, factor)),
    ):
        engine = TorchEngine(SpeechBody(tensors, config), vocabulary, config)
        prompt = (vocabulary.sos, *vocabulary.text(range(30)), vocabulary.task)
        spoken.append(list(engine.generate(TokenRequest(prompt, max_tokens=60, min_tokens=60, greedy=True))))
    assert spoken[0] == spoken[1]


def test_the_factor_makes_heads_that_the_kernel_has() -> None:
    config = LMConfig(hidden=64, heads=4, head_dim=16)
    assert widening_factor(config, (64, 128)) == 4
    assert widening_factor(config, (32, 128)) == 2
    assert widening_factor(LMConfig()) == 1
    with pytest.raises(CheckpointError, match="16 wide"):
        widening_factor(config, (40,))
    with pytest.raises(CheckpointError, match="not 4 heads"):
        widening_factor(replace(config, hidden=128), (64,))


def test_only_zeros_are_added() -> None:
    config = LMConfig(hidden=64, heads=4, kv_heads=2, head_dim=16)
    queries = torch.randn(64, 64)
    wide = widened({"model.layers.0.self_attn.q_proj.weight": queries}, config, 4)
    (values,) = wide.values()
    assert values.shape == (256, 256)
    assert torch.equal(values[::4, :64], 2 * queries)
    assert torch.count_nonzero(values) == torch.count_nonzero(queries)
