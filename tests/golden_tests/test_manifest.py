"""The acoustic set is what its manifest says, and its noise is drawn as the tests draw it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def manifest(golden_acoustic: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((golden_acoustic / "manifest.json").read_text())
    return loaded


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Of the first vocoder call of a session."""
    return np.random.RandomState(seed * 1000).standard_normal(shape).astype(np.float32)


def test_files_hold_the_arrays_that_the_manifest_lists(golden_acoustic: Path, manifest: dict[str, Any]) -> None:
    listed = {name: arrays for name, arrays in manifest.items() if not name.startswith("_")}
    assert set(listed) == {path.stem for path in golden_acoustic.glob("*.npz")}
    for name, arrays in listed.items():
        with np.load(golden_acoustic / f"{name}.npz") as stored:
            assert {key: [list(value.shape), str(value.dtype)] for key, value in stored.items()} == arrays, name


def test_noise_is_that_of_its_seed(golden_acoustic: Path, manifest: dict[str, Any]) -> None:
    seeds = manifest["_noise_seeds"]
    with np.load(golden_acoustic / "hift.npz") as stored:
        np.testing.assert_array_equal(stored["noise"], noise(seeds["hift"], stored["noise"].shape))
    first = np.array(manifest["_noise_check"]["first8"], np.float32)
    assert any(np.array_equal(noise(seed, first.shape), first) for seed in [*seeds["sessions"].values(), seeds["hift"]])
