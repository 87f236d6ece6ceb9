"""From the scores of a batch to one id per row: masks, greedy choice, RAS, seeds, broken rows.

Knows what a row is allowed to say, not why; plans decide that. Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.draw import draw, seed_word
from cosyvoice_core.lm.ras import Rules, mixture
from cosyvoice_core.lm.sampling import recent_ids, tempered
from cosyvoice_core.lm.vocabulary import SpeechVocabulary


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be chosen for one row.

    seed, position: they alone fix the draw; spoken: speech tokens so far, oldest first; closing: the one id
    past the speech tokens that may be said now, if any.
    """

    config: SamplingConfig
    seed: int
    position: int
    greedy: bool
    spoken: Sequence[int]
    closing: int | None


class Sampler:
    """Chooses ids; keeps nothing from one call to the next."""

    def __init__(self, vocabulary: SpeechVocabulary) -> None:
        self._vocabulary = vocabulary

    def masked(self, logits: Tensor, choices: Sequence[Choice]) -> Tensor:
        """A copy of `(B, head_rows)` in which every id that means nothing now is -inf."""
        speech = self._vocabulary.speech_tokens
        scores = logits.clone()
        scores[:, speech:] = -torch.inf
        for row, choice in enumerate(choices):
            if choice.closing is not None:
                scores[row, choice.closing] = logits[row, choice.closing]
        return scores

    def choose(self, logits: Tensor, choices: Sequence[Choice]) -> list[int | None]:
        """One id per row of `(B, head_rows)`; None for a row whose scores are not numbers."""
        scores = self.masked(logits.detach().to("cpu", torch.float32), choices)
        sound = torch.isfinite(scores.amax(1)).tolist()
        greedy = scores.argmax(1).tolist()
        drawing = [row for row, choice in enumerate(choices) if sound[row] and not choice.greedy]
        drawn = dict(zip(drawing, _draw(scores[drawing], [choices[row] for row in drawing]), strict=True))
        return [drawn.get(row, greedy[row]) if sound[row] else None for row in range(len(choices))]


def _draw(scores: Tensor, choices: Sequence[Choice]) -> list[int]:
    """RAS draws; only rows with a repeated id look beyond their nucleus, for the rest can be drawn nowhere else."""
    if not choices:
        return []
    scores = tempered(scores, [choice.config for choice in choices])
    recent = recent_ids([choice.spoken for choice in choices], [choice.config.window for choice in choices])
    mixed = mixture(scores, recent, Rules.of([choice.config for choice in choices]))
    seeds = torch.tensor([seed_word(choice.seed) for choice in choices])
    positions = torch.tensor([choice.position for choice in choices])
    drawn = draw(mixed.ids, mixed.near, seeds, positions)
    far = (mixed.spread > 0.0).nonzero()[:, 0]
    everywhere = mixed.rows(far).over(scores[far])
    drawn[far] = draw(torch.arange(scores.shape[1]), everywhere, seeds[far], positions[far])
    return drawn.tolist()
