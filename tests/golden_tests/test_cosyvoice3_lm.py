"""The CosyVoice3 language model: other markers, no marker rows, no head bias."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosyvoice_core.lm import TokenRequest, TorchEngine, length_bounds, uni_prompt
from tests.golden_tests.arrays import Arrays, read_arrays
from tests.golden_tests.lm_models import Decoding, GoldenLM, cosyvoice3, greedy, inputs

pytestmark = pytest.mark.golden

EMBEDDING = 1e-7
LOGITS = 1e-4
FIELDS = {
    *("text", "prompt_text", "prompt_speech", "teacher_tokens", "endofprompt_id_here", "greedy_yielded"),
    *("max_ratio", "min_ratio", "logits_first_position", "sampled_incl_stop"),
}


@pytest.fixture(scope="module")
def lm(golden_lm: Path) -> GoldenLM:
    return cosyvoice3(golden_lm)


@pytest.fixture(scope="module")
def case(golden_lm: Path) -> dict[str, Any]:
    return json.loads((golden_lm / "cv3.json").read_text())


@pytest.fixture(scope="module")
def arrays(golden_lm: Path) -> Arrays:
    return read_arrays(golden_lm / "cv3.npz")


@pytest.fixture(scope="module")
def prompt(case: dict[str, Any], lm: GoldenLM) -> list[int]:
    return uni_prompt(lm.vocabulary, inputs(case))


def test_every_field_is_known(case: dict[str, Any], arrays: Arrays) -> None:
    assert set(case) == FIELDS
    assert set(arrays) == {"logits", "lm_input_embeds"}
    assert case["endofprompt_id_here"] in case["prompt_text"] + case["text"]


def test_input_embeddings(case: dict[str, Any], arrays: Arrays, lm: GoldenLM, prompt: list[int]) -> None:
    stored = arrays["lm_input_embeds"]
    ours = lm.body.embed((prompt + case["teacher_tokens"])[: len(stored)]).numpy()
    np.testing.assert_allclose(ours, stored, rtol=0, atol=EMBEDDING)


def test_logits(case: dict[str, Any], arrays: Arrays, lm: GoldenLM, prompt: list[int]) -> None:
    ids, first = prompt + case["teacher_tokens"], case["logits_first_position"]
    at_once = Decoding(lm).feed(ids)[first:].numpy()
    np.testing.assert_allclose(at_once, arrays["logits"], rtol=0, atol=LOGITS)
    decoding = Decoding(lm)
    stepwise = np.concatenate([decoding.feed([id_]).numpy() for id_ in ids])[first:]
    np.testing.assert_allclose(stepwise, arrays["logits"], rtol=0, atol=LOGITS)


def test_greedy_as_the_original(case: dict[str, Any], lm: GoldenLM, prompt: list[int]) -> None:
    """The original masks the first id past the speech tokens early on, which is eos in CosyVoice2 only."""
    bounds = length_bounds(len(case["text"]), case["min_ratio"], case["max_ratio"])
    tokens, stop = greedy(lm, prompt, *bounds, not_before_min=[lm.vocabulary.speech_tokens])
    assert tokens == case["greedy_yielded"]
    assert tokens + ([] if stop is None else [stop]) == case["sampled_incl_stop"]


def test_engine_never_says_an_illegal_id(case: dict[str, Any], lm: GoldenLM, prompt: list[int]) -> None:
    """As the original until it draws a stop id; ours is masked, and the minimum length is kept."""
    least, most = length_bounds(len(case["text"]), case["min_ratio"], case["max_ratio"])
    engine = TorchEngine(lm.body, lm.vocabulary, lm.config)
    request = TokenRequest(prompt_ids=tuple(prompt), min_tokens=least, max_tokens=most, greedy=True)
    tokens = list(engine.generate(request))
    assert tokens[: len(case["greedy_yielded"])] == case["greedy_yielded"]
    assert least <= len(tokens) <= most
    assert all(token < lm.vocabulary.speech_tokens for token in tokens)
