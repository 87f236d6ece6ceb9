"""Uni-stream language model against the original implementation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosyvoice_core.lm import TokenRequest, TorchEngine, length_bounds, uni_prompt
from cosyvoice_core.lm.body import Span
from cosyvoice_core.lm.merge import checkpoint_layout
from tests.golden_tests.arrays import Arrays, read_arrays, unknown
from tests.golden_tests.lm_models import Decoding, GoldenLM, cosyvoice2, greedy, inputs

pytestmark = pytest.mark.golden

EMBEDDING = 1e-7
LOGITS = 1e-4
RATIOS = re.compile(r"greedy_yielded_min([\d.]+)(?:_max([\d.]+))?")
FIELDS = [
    *("text", "prompt_text", "prompt_speech", "merged_prompt_ids", "teacher_tokens", "logits_first_position"),
    *("min_len", "max_len", "greedy_yielded", "greedy_sampled_incl_stop", "stop_token"),
    *("greedy_yielded_all_stops_masked_until_min", "greedy_stop_all_masked"),
    *("greedy_yielded_recommended", "hit_max_recommended"),
]
"""What every case has; greedy runs with other ratios come on top, for some case at least."""

Case = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def lm(golden_lm: Path) -> GoldenLM:
    return cosyvoice2(golden_lm)


@pytest.fixture(scope="module")
def cases(golden_lm: Path) -> list[Case]:
    found = list(json.loads((golden_lm / "lm_uni.json").read_text()).items())
    assert found
    return found


@pytest.fixture(scope="module")
def arrays(golden_lm: Path) -> Arrays:
    return read_arrays(golden_lm / "lm_uni.npz")


def test_every_field_is_known(cases: list[Case], arrays: Arrays) -> None:
    for name, case in cases:
        assert unknown(case, [*FIELDS, RATIOS.pattern]) == [], name
        assert set(FIELDS) <= set(case), name
    assert set(arrays) == {f"{name}.{field}" for name, _ in cases for field in ("lm_input_embeds", "logits")}


def test_keys_of_the_checkpoint(golden_lm: Path, lm: GoldenLM) -> None:
    stored = json.loads((golden_lm / "ckpt_llm_keys.json").read_text())
    layout = checkpoint_layout(lm.config, lm.vocabulary)
    assert {key: list(shape) for key, shape in layout.items()} == stored


def test_prompt_and_length_bounds(cases: list[Case], lm: GoldenLM) -> None:
    for name, case in cases:
        assert uni_prompt(lm.vocabulary, inputs(case)) == case["merged_prompt_ids"], name
        assert length_bounds(len(case["text"])) == (case["min_len"], case["max_len"]), name


def test_input_embeddings(cases: list[Case], arrays: Arrays, lm: GoldenLM) -> None:
    for name, case in cases:
        ours = lm.body.embed(case["merged_prompt_ids"]).numpy()
        np.testing.assert_allclose(ours, arrays[f"{name}.lm_input_embeds"], rtol=0, atol=EMBEDDING, err_msg=name)


def test_logits_of_one_forward(cases: list[Case], arrays: Arrays, lm: GoldenLM) -> None:
    for name, case in cases:
        ids = case["merged_prompt_ids"] + case["teacher_tokens"]
        ours = Decoding(lm).feed(ids)[case["logits_first_position"] :].numpy()
        np.testing.assert_allclose(ours, arrays[f"{name}.logits"], rtol=0, atol=LOGITS, err_msg=name)


def test_logits_token_by_token(cases: list[Case], arrays: Arrays, lm: GoldenLM) -> None:
    for name, case in cases:
        ids = case["merged_prompt_ids"] + case["teacher_tokens"]
        decoding = Decoding(lm)
        rows = np.concatenate([decoding.feed([id_]).numpy() for id_ in ids])
        stored = arrays[f"{name}.logits"]
        np.testing.assert_allclose(rows[case["logits_first_position"] :], stored, rtol=0, atol=LOGITS, err_msg=name)


def test_logits_of_all_cases_in_one_ragged_batch(cases: list[Case], arrays: Arrays, lm: GoldenLM) -> None:
    sequences = [case["merged_prompt_ids"] + case["teacher_tokens"] for _, case in cases]
    spans = [Span(lm.body.new_cache(), 0, len(ids)) for ids in sequences]
    logits = lm.body.logits(lm.body.forward([id_ for ids in sequences for id_ in ids], spans)).numpy()
    last = np.cumsum([len(ids) for ids in sequences])
    for (name, case), ids, end in zip(cases, sequences, last, strict=True):
        ours = logits[end - len(ids) + case["logits_first_position"] : end]
        np.testing.assert_allclose(ours, arrays[f"{name}.logits"], rtol=0, atol=LOGITS, err_msg=name)


def test_greedy_as_the_original(cases: list[Case], lm: GoldenLM) -> None:
    for name, case in cases:
        bounds = case["min_len"], case["max_len"]
        tokens, stop = greedy(lm, case["merged_prompt_ids"], *bounds, not_before_min=[lm.vocabulary.eos])
        assert (tokens, stop) == (case["greedy_yielded"], case["stop_token"]), name
        assert tokens + ([] if stop is None else [stop]) == case["greedy_sampled_incl_stop"], name


def test_greedy_as_the_original_with_other_ratios(cases: list[Case], lm: GoldenLM) -> None:
    stored = [(name, case, found) for name, case in cases for field in case if (found := RATIOS.fullmatch(field))]
    assert stored
    for name, case, found in stored:
        ratios = {"min_ratio": float(found[1])} | ({"max_ratio": float(found[2])} if found[2] else {})
        bounds = length_bounds(len(case["text"]), **ratios)
        tokens, _ = greedy(lm, case["merged_prompt_ids"], *bounds, not_before_min=[lm.vocabulary.eos])
        assert tokens == case[found[0]], (name, found[0])


def test_greedy_with_all_stop_ids_masked_until_the_minimum(cases: list[Case], lm: GoldenLM) -> None:
    for name, case in cases:
        bounds = case["min_len"], case["max_len"]
        tokens, stop = greedy(lm, case["merged_prompt_ids"], *bounds, not_before_min=lm.vocabulary.stop_ids)
        assert tokens == case["greedy_yielded_all_stops_masked_until_min"], name
        assert stop == case["greedy_stop_all_masked"], name


def test_engine_as_recommended(cases: list[Case], lm: GoldenLM) -> None:
    """All cases at once: illegal ids are never said, eos not before the minimum."""
    engine = TorchEngine(lm.body, lm.vocabulary, lm.config)
    names = {}
    for name, case in cases:
        prompt = tuple(uni_prompt(lm.vocabulary, inputs(case)))
        bounds = {"min_tokens": case["min_len"], "max_tokens": case["max_len"]}
        names[engine.add(TokenRequest(prompt_ids=prompt, greedy=True, **bounds))] = name
    tokens: dict[str, list[int]] = {name: [] for name, _ in cases}
    reasons = {}
    while engine.pending:
        for event in engine.step():
            tokens[names[event.sequence]] += event.tokens
            if event.finished:
                reasons[names[event.sequence]] = event.reason
    for name, case in cases:
        assert tokens[name] == case["greedy_yielded_recommended"], name
        assert reasons[name] == ("length" if case["hit_max_recommended"] else "stop"), name
