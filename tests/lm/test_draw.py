"""Draws as a pure function of seed, position and id."""

from __future__ import annotations

import numpy as np

from cosyvoice_core.lm.draw import draw, uniforms

IDS = np.arange(6564)


def chi_squared(counts: np.ndarray, expected: np.ndarray) -> float:
    """Standard score of the statistic, which is about normal for many bins."""
    degrees = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - degrees) / np.sqrt(2 * degrees))


def test_numbers_are_evenly_spread_over_ids_positions_and_seeds() -> None:
    for numbers in (
        uniforms(0, 0, np.arange(200_000)),
        np.concatenate([uniforms(1, position, IDS[:20]) for position in range(10_000)]),
        np.concatenate([uniforms(seed, 3, IDS[:20]) for seed in range(10_000)]),
    ):
        assert numbers.min() > 0.0
        assert numbers.max() < 1.0
        counts = np.histogram(numbers, bins=1000, range=(0, 1))[0]
        assert abs(chi_squared(counts, np.full(1000, len(numbers) / 1000))) < 4


def test_neighbouring_draws_are_unrelated() -> None:
    base = uniforms(7, 100, IDS)
    for other in (uniforms(7, 101, IDS), uniforms(8, 100, IDS), uniforms(8, 99, IDS), np.roll(base, 1)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(len(IDS))


def test_an_ids_number_does_not_depend_on_which_others_are_asked_for() -> None:
    some = np.array([6000, 3, 17])
    assert np.array_equal(uniforms(5, 9, some), uniforms(5, 9, IDS)[some])


def test_seeds_are_taken_modulo_two_to_the_64() -> None:
    assert np.array_equal(uniforms(-1, 0, IDS[:5]), uniforms(2**64 - 1, 0, IDS[:5]))


def test_frequencies_are_the_probabilities() -> None:
    chances = np.random.default_rng(0).dirichlet(np.full(40, 0.5))
    chances[::7] = 0.0
    drawn = [draw(np.arange(100, 140), 3.0 * chances, 11, position) - 100 for position in range(20_000)]
    counts = np.bincount(drawn, minlength=40)
    assert not counts[chances == 0.0].any()
    possible = chances > 1e-4
    expected = 20_000 * chances[possible] / chances.sum()
    assert abs(chi_squared(counts[possible], expected)) < 4


def test_rounding_of_the_probabilities_hardly_ever_changes_the_draw() -> None:
    """With sums over 6564 ids about one draw in a thousand would change."""
    rng = np.random.default_rng(1)
    chances = rng.dirichlet(np.ones(6564))
    nearly = chances * np.exp(3e-5 * rng.standard_normal(6564))
    changed = sum(draw(IDS, chances, 0, position) != draw(IDS, nearly, 0, position) for position in range(3000))
    assert changed <= 2
