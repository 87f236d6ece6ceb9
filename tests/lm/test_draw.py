"""Draws as a pure function of seed, position and id."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from cosyvoice_core.lm.draw import draw, seed_word, uniforms

IDS = torch.arange(6564)
MASK = (1 << 64) - 1


def numbers_of(seed: int, position: int, ids: Tensor) -> Tensor:
    return uniforms(ids, torch.tensor([seed_word(seed)]), torch.tensor([position]))[0]


def splitmix(state: int, entry: int) -> int:
    """Output `entry` of the SplitMix64 generator in unsigned integers of any size."""
    word = (state + (entry + 1) * 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def chi_squared(counts: np.ndarray, expected: np.ndarray) -> float:
    """Standard score of the statistic, which is about normal for many bins."""
    degrees = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("position", [0, 1, 1999])
def test_numbers_are_those_of_splitmix(seed: int, position: int) -> None:
    state = splitmix(splitmix(seed, 0), position)
    expected = [((splitmix(state, id_) >> 11) + 0.5) * 2.0**-53 for id_ in range(200)]
    assert numbers_of(seed, position, IDS[:200]).tolist() == expected


def test_the_generator_is_the_published_one() -> None:
    assert splitmix(1234567, 0) == 6457827717110365317
    assert splitmix(1234567, 1) == 3203168211198807973


def test_numbers_are_evenly_spread_over_ids_positions_and_seeds() -> None:
    many = torch.arange(10_000)
    for numbers in (
        numbers_of(0, 0, torch.arange(200_000)),
        uniforms(IDS[:20], torch.full_like(many, 1), many),
        uniforms(IDS[:20], many, torch.full_like(many, 3)),
    ):
        assert numbers.min() > 0.0
        assert numbers.max() < 1.0
        counts = np.histogram(numbers.flatten().numpy(), bins=1000, range=(0, 1))[0]
        assert abs(chi_squared(counts, np.full(1000, numbers.numel() / 1000))) < 4


def test_neighbouring_draws_are_unrelated() -> None:
    base = numbers_of(7, 100, IDS)
    for other in (numbers_of(7, 101, IDS), numbers_of(8, 100, IDS), numbers_of(8, 99, IDS), base.roll(1)):
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 5 / np.sqrt(len(IDS))


def test_an_ids_number_does_not_depend_on_which_others_are_asked_for() -> None:
    some = torch.tensor([6000, 3, 17])
    assert torch.equal(numbers_of(5, 9, some), numbers_of(5, 9, IDS)[some])


def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    assert torch.equal(numbers_of(-1, 0, IDS[:5]), numbers_of(2**64 - 1, 0, IDS[:5]))
    assert torch.equal(numbers_of(2**64 + 3, 0, IDS[:5]), numbers_of(3, 0, IDS[:5]))


def test_frequencies_are_the_probabilities() -> None:
    chances = np.random.default_rng(0).dirichlet(np.full(40, 0.5))
    chances[::7] = 0.0
    positions = torch.arange(20_000)
    weights = torch.from_numpy(3.0 * chances).expand(20_000, -1)
    drawn = draw(torch.arange(100, 140), weights, torch.full_like(positions, 11), positions) - 100
    counts = np.bincount(drawn.numpy(), minlength=40)
    assert not counts[chances == 0.0].any()
    possible = chances > 1e-4
    expected = 20_000 * chances[possible] / chances.sum()
    assert abs(chi_squared(counts[possible], expected)) < 4


def test_rounding_of_the_probabilities_hardly_ever_changes_the_draw() -> None:
    """With sums over 6564 ids about one draw in a thousand would change."""
    rng = np.random.default_rng(1)
    chances = rng.dirichlet(np.ones(6564))
    nearly = chances * np.exp(3e-5 * rng.standard_normal(6564))
    changed = 0
    for positions in torch.arange(3000).split(500):
        seeds = torch.zeros_like(positions)
        first, second = (torch.from_numpy(values).expand(500, -1) for values in (chances, nearly))
        changed += int((draw(IDS, first, seeds, positions) != draw(IDS, second, seeds, positions)).sum())
    assert changed <= 2
