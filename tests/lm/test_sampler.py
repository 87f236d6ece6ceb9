"""From scores to ids: masks, greedy rows, broken rows, rows that share nothing but the call."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.sampler import Choice, Sampler
from cosyvoice_core.lm.sampling import ras_probabilities
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

VOCABULARY = SpeechVocabulary.cosyvoice2(10, speech_tokens=60)
CHOICE = Choice(config=SamplingConfig(), seed=4, position=0, greedy=True, spoken=(), closing=None)


@pytest.fixture
def sampler() -> Sampler:
    return Sampler(VOCABULARY)


def scores(rows: int) -> torch.Tensor:
    return 2 * torch.randn(rows, VOCABULARY.head_rows, generator=torch.Generator().manual_seed(3))


def test_only_the_closing_id_is_legal_past_the_speech_tokens(sampler: Sampler) -> None:
    logits = scores(3)
    logits[:, VOCABULARY.speech_tokens :] = 50.0 + torch.arange(3.0)
    closings = (None, VOCABULARY.eos, VOCABULARY.fill)
    chosen = sampler.choose(logits, [replace(CHOICE, closing=closing) for closing in closings])
    assert chosen == [int(logits[0, : VOCABULARY.speech_tokens].argmax()), VOCABULARY.eos, VOCABULARY.fill]


def test_given_scores_are_left_as_they_are(sampler: Sampler) -> None:
    logits = scores(1)
    before = logits.clone()
    sampler.choose(logits, [replace(CHOICE, greedy=False)])
    assert torch.equal(logits, before)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_broken_row_chooses_nothing_and_harms_no_other(sampler: Sampler, broken: float) -> None:
    logits = scores(4)
    choices = [replace(CHOICE, greedy=row % 2 == 0, seed=row) for row in range(4)]
    whole = sampler.choose(logits, choices)
    logits[1, 17] = logits[2, 5] = broken
    assert sampler.choose(logits, choices) == [whole[0], None, None, whole[3]]


def test_rows_of_different_settings_are_drawn_as_if_alone(sampler: Sampler) -> None:
    logits = scores(6)
    spoken = [logits[row].topk(8).indices.tolist() for row in range(6)]
    configs = [SamplingConfig(), SamplingConfig(tau=1.0), SamplingConfig(top_p=1.0, top_k=60, window=0)] * 2
    choices = [
        replace(CHOICE, config=config, greedy=row == 4, seed=row, position=row * 3, spoken=spoken[row])
        for row, config in enumerate(configs)
    ]
    together = sampler.choose(logits, choices)
    assert together == [sampler.choose(logits[row : row + 1], [choices[row]])[0] for row in range(6)]


@pytest.mark.parametrize("repeats", [0, 5])
def test_draws_follow_the_ras_distribution(sampler: Sampler, repeats: int) -> None:
    logits = scores(1)
    spoken = logits[0, : VOCABULARY.speech_tokens].topk(repeats).indices.tolist()
    choice = replace(CHOICE, greedy=False, spoken=spoken, closing=VOCABULARY.eos)
    expected = ras_probabilities(sampler.masked(logits, [choice]), [spoken], choice.config)[0]
    count = 6000
    drawn = sampler.choose(logits.expand(count, -1), [replace(choice, position=position) for position in range(count)])
    counts = torch.bincount(torch.tensor(drawn), minlength=VOCABULARY.head_rows)
    assert not counts[expected == 0.0].any()
    common = expected * count > 5
    deviation = (counts[common] - expected[common] * count) / (expected[common] * count).sqrt()
    assert float(deviation.abs().max()) < 4.5
    assert float(deviation.square().mean()) < 2.0


def test_temperature_flattens_the_row_it_is_asked_for_only() -> None:
    """Draws at temperature t are the draws from scores divided by t; a neighbour at 1 keeps its own."""
    vocabulary = SpeechVocabulary.cosyvoice2(10, 50)
    scores = torch.randn(2, vocabulary.head_rows, generator=torch.Generator().manual_seed(1)) * 3
    warm = SamplingConfig(top_p=0.9, temperature=1.7)

    def chosen(logits: torch.Tensor, configs: list[SamplingConfig]) -> list[list[int | None]]:
        choices = [[Choice(config, seed, 0, False, (), None) for config in configs] for seed in range(40)]
        return [Sampler(vocabulary).choose(logits, row) for row in choices]

    mixed = chosen(scores, [warm, SamplingConfig(top_p=0.9)])
    scaled = torch.stack([scores[0] / 1.7, scores[1]])
    assert mixed == chosen(scaled, [SamplingConfig(top_p=0.9)] * 2)
    assert len({first for first, _ in mixed}) > len(
        {first for first, _ in chosen(scores, [SamplingConfig(top_p=0.9)] * 2)}
    )
