"""Repetition-aware sampling against the original's two draws, enumerated exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.sampling import mixture, nucleus, ras_probabilities
from tests.golden_tests.arrays import Arrays, read_arrays

pytestmark = pytest.mark.golden

TOTAL_VARIATION = 1e-5
OFFICIAL_NAMES = {"top_p": "top_p", "top_k": "top_k", "win_size": "window", "tau_r": "tau"}
"""Settings of the sampler as the original names them; a case that tells none was made with the official ones."""


@pytest.fixture(scope="module")
def cases(golden_lm: Path) -> list[dict[str, Any]]:
    found = json.loads((golden_lm / "ras.json").read_text())
    assert found
    return found


@pytest.fixture(scope="module")
def arrays(golden_lm: Path) -> Arrays:
    return read_arrays(golden_lm / "ras.npz")


def config(case: dict[str, Any]) -> SamplingConfig:
    return SamplingConfig(**{ours: case[name] for name, ours in OFFICIAL_NAMES.items() if name in case})


def total_variation(first: np.ndarray, second: np.ndarray) -> float:
    return 0.5 * float(np.abs(first.astype(np.float64) - second.astype(np.float64)).sum())


def test_every_array_belongs_to_a_case(cases: list[dict[str, Any]], arrays: Arrays) -> None:
    fields = ("scores", "probs", "nucleus_probs")
    assert set(arrays) == {f"{case['case']}.{field}" for case in cases for field in fields}


def test_final_distribution(cases: list[dict[str, Any]], arrays: Arrays) -> None:
    for case in cases:
        scores = torch.from_numpy(arrays[f"{case['case']}.scores"])
        ours = ras_probabilities(scores[None], [case["window"]], config(case))[0].numpy()
        assert ours.shape == (case["vocab"],)
        assert torch.isinf(scores).any() or not case["eos_masked"], case["case"]
        assert not ours[np.isinf(scores.numpy())].any()
        distance = total_variation(ours, arrays[f"{case['case']}.probs"])
        assert distance + case["tv_vs_reference_exact"] <= TOTAL_VARIATION, case["case"]


def test_nucleus(cases: list[dict[str, Any]], arrays: Arrays) -> None:
    for case in cases:
        scores = torch.from_numpy(arrays[f"{case['case']}.scores"])
        found = nucleus(scores[None], config(case))
        members = found.ids[0][found.chance[0] > 0.0].tolist()
        assert sorted(members) == sorted(case["nucleus_ids"]), case["case"]
        ours = torch.zeros(case["vocab"], dtype=torch.float64).scatter(0, found.ids[0], found.chance[0])
        assert total_variation(ours.numpy(), arrays[f"{case['case']}.nucleus_probs"]) <= TOTAL_VARIATION, case["case"]


def test_repeated_ids(cases: list[dict[str, Any]], arrays: Arrays) -> None:
    for case in cases:
        scores = torch.from_numpy(arrays[f"{case['case']}.scores"])
        mixed = mixture(scores[None], [case["window"]], config(case))
        assert set(mixed.ids[mixed.banned].tolist()) == set(case["repeated_in_nucleus"]), case["case"]


def test_cases_of_one_width_in_one_batch(cases: list[dict[str, Any]], arrays: Arrays) -> None:
    for width, shared in {(case["vocab"], config(case)) for case in cases}:
        group = [case for case in cases if (case["vocab"], config(case)) == (width, shared)]
        scores = torch.stack([torch.from_numpy(arrays[f"{case['case']}.scores"]) for case in group])
        ours = ras_probabilities(scores, [case["window"] for case in group], shared).numpy()
        for row, case in zip(ours, group, strict=True):
            assert total_variation(row, arrays[f"{case['case']}.probs"]) <= TOTAL_VARIATION, case["case"]
