"""The closed form of repetition-aware sampling, against the two draws it stands for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.sampling import nucleus, ras_probabilities

EXACT = 1e-12


def two_draws(scores: list[float], window: Sequence[int], config: SamplingConfig) -> list[float]:
    """Every outcome of: draw from the nucleus; if that id is repeated, draw from all others. In plain floats."""
    best = max(scores)
    weights = [math.exp(score - best) for score in scores]
    mass = [weight / math.fsum(weights) for weight in weights]
    order = sorted(range(len(scores)), key=lambda id_: (-scores[id_], id_))
    members: list[int] = []
    while len(members) < min(config.top_k, len(scores)) and math.fsum(mass[id_] for id_ in members) < config.top_p:
        members.append(order[len(members)])
    total = math.fsum(mass[id_] for id_ in members)
    result = [0.0] * len(scores)
    recent = list(window)[-config.window :] if config.window else []
    for id_ in members:
        chance = mass[id_] / total
        others = [weight for other, weight in enumerate(weights) if other != id_]
        repeated = config.window > 0 and recent.count(id_) >= config.window * config.tau
        if not repeated or math.fsum(others) == 0.0:
            result[id_] += chance
            continue
        for other, weight in enumerate(weights):
            if other != id_:
                result[other] += chance * weight / math.fsum(others)
    return result


@settings(max_examples=200, derandomize=True)
@given(
    scores=st.lists(
        st.one_of(st.floats(-8, 8), st.sampled_from([-math.inf, 0.0, 1.0, 30.0])), min_size=1, max_size=12
    ).filter(lambda values: max(values) > -math.inf),
    window=st.lists(st.integers(0, 11), max_size=14),
    top_p=st.sampled_from([0.3, 0.8, 0.95, 1.0]),
    top_k=st.integers(1, 14),
    size=st.integers(0, 11),
    tau=st.sampled_from([0.0, 0.1, 0.2, 1.0, 2.0]),
)
def test_closed_form_is_the_two_draws(
    scores: list[float], window: list[int], top_p: float, top_k: int, size: int, tau: float
) -> None:
    config = SamplingConfig(top_p=top_p, top_k=top_k, window=size, tau=tau)
    ours = ras_probabilities(torch.tensor([scores], dtype=torch.float64), [window], config)
    expected = torch.tensor([two_draws(scores, window, config)], dtype=torch.float64)
    torch.testing.assert_close(ours, expected, rtol=0, atol=EXACT)
    assert ours.min() >= 0.0


def test_rows_of_a_batch_do_not_touch_each_other() -> None:
    scores = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * 3
    windows = [scores[row].topk(3 * row).indices.tolist() for row in range(5)]
    config = SamplingConfig()
    together = ras_probabilities(scores, windows, config)
    for row in range(5):
        alone = ras_probabilities(scores[row : row + 1], [windows[row]], config)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=EXACT)


def test_equal_scores_enter_the_nucleus_by_ascending_id() -> None:
    scores = torch.zeros(2, 40)
    scores[1, [5, 30, 31]] = 1.0
    ids = nucleus(scores, SamplingConfig(top_k=4)).ids
    assert ids.tolist() == [[0, 1, 2, 3], [5, 30, 31, 0]]


def test_the_id_that_crosses_top_p_is_in() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.1]]).log()
    found = nucleus(scores, SamplingConfig(top_p=0.8))
    assert found.ids.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(found.chance[0], torch.tensor([5 / 9, 4 / 9, 0.0]).double(), rtol=0, atol=1e-7)


def test_an_id_with_almost_all_mass_is_replaced_in_proportion() -> None:
    """1 - p has no digits left here; the others' shares must be right all the same."""
    scores = torch.tensor([[60.0, 2.0, 1.0]])
    ours = ras_probabilities(scores, [[0]], SamplingConfig())[0]
    assert ours[0] == 0.0
    assert float(ours[1]) == pytest.approx(1.0 / (1.0 + math.exp(-1.0)), abs=1e-9)


def test_the_only_possible_id_is_kept_even_if_repeated() -> None:
    scores = torch.tensor([[-torch.inf, 3.0, -torch.inf]])
    assert ras_probabilities(scores, [[1, 1, 1]], SamplingConfig())[0].tolist() == [0.0, 1.0, 0.0]


def test_masked_ids_stay_impossible() -> None:
    scores = torch.randn(1, 50, generator=torch.Generator().manual_seed(2))
    scores[0, 10:20] = -torch.inf
    ours = ras_probabilities(scores, [scores[0].topk(9).indices.tolist()], SamplingConfig())[0]
    assert not ours[10:20].any()
    assert float(ours.sum()) == pytest.approx(1.0, abs=EXACT)


def windowed(scores: Tensor, window: list[int], size: int) -> Tensor:
    return ras_probabilities(scores, [window], SamplingConfig(window=size, tau=0.1))


def test_only_the_last_ids_of_the_window_count() -> None:
    scores = torch.tensor([[2.0, 1.0, 0.0]])
    assert torch.equal(windowed(scores, [0, *([2] * 10)], 10), windowed(scores, [2] * 10, 10))
    assert not torch.equal(windowed(scores, [0, *([2] * 9)], 10), windowed(scores, [2] * 9, 10))
