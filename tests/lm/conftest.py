"""A tiny language model for the tests of this room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.lm.body import SpeechBody
from cosyvoice_core.lm.engine import TorchEngine
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from tests.golden_tests.lm_models import read_config


@pytest.fixture(scope="session")
def engine(golden_lm: Path) -> TorchEngine:
    """Of the golden set's tiny checkpoint, float32; tests leave it without sequences."""
    config = read_config(golden_lm)
    return TorchEngine.from_directory(golden_lm / "ckpt", config)


@pytest.fixture(scope="session")
def small_context(golden_lm: Path) -> TorchEngine:
    """The same with room for 64 positions, little prefill per step, and weights that never end an utterance."""
    config = read_config(golden_lm)
    config = replace(config, max_positions=64)
    vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
    merged = merge(read_state(golden_lm / "ckpt" / "llm.pt"), config, vocabulary)
    merged["lm_head.bias"][vocabulary.eos] = -1000.0
    return TorchEngine(SpeechBody(merged, config), vocabulary, config, prefill_tokens=8)
