"""Arrivals of an open loop: their rate, their shape, and that they repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest import arrivals
from loadtest.errors import ScenarioError


def test_poisson_has_its_rate_and_exponential_spacing() -> None:
    offsets = np.array(arrivals.poisson(20, 500, seed=1))
    assert len(offsets) / 500 == pytest.approx(20, rel=0.03)
    spaces = np.diff(offsets)
    # An exponential's standard deviation is its mean; even spacing would give 0.
    assert spaces.std() / spaces.mean() == pytest.approx(1, rel=0.05)
    assert (spaces >= 0).all()
    assert offsets[-1] < 500


def test_the_same_seed_gives_the_same_arrivals_and_another_does_not() -> None:
    assert arrivals.poisson(3, 60, seed=4) == arrivals.poisson(3, 60, seed=4)
    assert arrivals.poisson(3, 60, seed=4) != arrivals.poisson(3, 60, seed=5)


def test_bursts_keep_the_average_rate_but_come_together() -> None:
    offsets = np.array(arrivals.bursts(4, 8, 0.1, 600, seed=2))
    assert len(offsets) / 600 == pytest.approx(4, rel=0.15)
    assert (np.diff(offsets) >= 0).all()
    # Within a burst of 8 in 0.1 s the spaces are tiny; of independent arrivals 9 % would be below 25 ms.
    assert np.mean(np.diff(offsets) < 0.025) > 0.6


def test_a_rate_so_low_that_nothing_comes_gives_nothing() -> None:
    assert arrivals.poisson(1e-6, 1, seed=1) == ()
    assert arrivals.bursts(1e-6, 4, 0.1, 1, seed=1) == ()


def test_a_trace_is_replayed_from_its_first_arrival_at_the_given_speed(tmp_path: Path) -> None:
    file = tmp_path / "day.txt"
    file.write_text("# seconds of the day\n1000.5\n\n1001.5  # late\n1000.75\n")
    assert arrivals.trace(file, speed=1) == (0.0, 0.25, 1.0)
    assert arrivals.trace(file, speed=2) == (0.0, 0.125, 0.5)


@pytest.mark.parametrize(
    ("content", "says"), [("1\nsoon\n", "line 2: 'soon'"), ("nan", "line 1"), ("# nothing\n", "no arrivals")]
)
def test_a_wrong_trace_is_refused_with_its_line(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "wrong.txt"
    file.write_text(content)
    with pytest.raises(ScenarioError, match=says):
        arrivals.trace(file, speed=1)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="nowhere"):
        arrivals.trace(tmp_path / "nowhere", speed=1)
