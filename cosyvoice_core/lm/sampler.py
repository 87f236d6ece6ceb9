"""From the scores of a batch to one id per row: masks, greedy choice, RAS, seeds, broken rows.

Knows what a row is allowed to say, not why; plans decide that. Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm.draw import draw
from cosyvoice_core.lm.sampling import mixture
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
        chosen: list[int | None] = [None] * len(choices)
        drawn: defaultdict[SamplingConfig, list[int]] = defaultdict(list)
        for row, choice in enumerate(choices):
            if sound[row] and choice.greedy:
                chosen[row] = int(scores[row].argmax())
            elif sound[row]:
                drawn[choice.config].append(row)
        for config, rows in drawn.items():
            for row, id_ in zip(rows, _draw(scores[rows], [choices[row] for row in rows], config), strict=True):
                chosen[row] = id_
        return chosen


def _draw(scores: Tensor, choices: Sequence[Choice], config: SamplingConfig) -> list[int]:
    """RAS draws for rows that share a config; only rows with a repeated id look beyond their nucleus."""
    mixed = mixture(scores, [choice.spoken for choice in choices], config)
    ids, near, spread = mixed.ids.numpy(), mixed.near.numpy(), mixed.spread.tolist()
    drawn = []
    for row, choice in enumerate(choices):
        row_ids, row_chances = ids[row], near[row]
        if spread[row] > 0.0:
            row_ids = np.arange(scores.shape[1])
            row_chances = (scores[row].double().softmax(0) * spread[row]).numpy()
            row_chances[ids[row]] = near[row]
        drawn.append(draw(row_ids, row_chances, choice.seed, choice.position))
    return drawn
