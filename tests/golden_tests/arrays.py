"""Arrays of a golden set, and which of a file's names a test answers for. Knows no model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

Arrays = dict[str, npt.NDArray[np.generic]]


def read_arrays(path: Path) -> Arrays:
    """All arrays of an `.npz` file, of which there must be some."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    assert arrays, path
    return arrays


def sessions(golden_acoustic: Path) -> dict[str, Arrays]:
    """Every token-to-wave session of the acoustic set, of which there must be some, by name."""
    paths = sorted(golden_acoustic.glob("session_*.npz"))
    assert paths
    return {path.stem.removeprefix("session_"): read_arrays(path) for path in paths}


def matches(names: Iterable[str], pattern: str) -> list[re.Match[str]]:
    """Those of `names` that `pattern` describes wholly, of which there must be some."""
    found = [match for name in names if (match := re.fullmatch(pattern, name))]
    assert found, f"no array is named like {pattern}"
    return found


def unknown(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of `names` that no pattern describes: arrays that no test would look at."""
    return [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)]


def of_its_size(tolerance: float, expected: npt.NDArray[np.generic]) -> float:
    """A tolerance that is given for values of order one, for layers whose values are larger.

    The embedded tokens of the encoder, for example, are scaled by the square root of its width.
    """
    return tolerance * max(1.0, float(np.sqrt(np.mean(np.square(expected, dtype=np.float64)))))


def largest_gap(actual: Tensor, expected: npt.NDArray[np.generic]) -> float:
    """Largest difference of two arrays of the same shape."""
    assert tuple(actual.shape) == expected.shape
    difference: np.float64 = np.abs(actual.numpy().astype(np.float64) - expected).max(initial=0.0)
    return float(difference)
