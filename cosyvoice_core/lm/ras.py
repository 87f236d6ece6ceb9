"""Repetition-aware sampling (RAS) as one distribution, so that a single draw replaces the two-stage procedure.

The procedure: draw from the nucleus; when the drawn id is among the last generated ones, draw again from all
other ids. Tensors in, tensors out, on any device and without ever waiting for it, so that it can run inside the
step of an engine. Knows scores and recent ids only: no seeds, no requests. Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.config import SamplingConfig


def rejection_count(config: SamplingConfig) -> float:
    """From how many occurrences among the recent ids on an id is drawn again; a window of 0 turns that off."""
    return config.window * config.tau if config.window else math.inf


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of the rows of a batch: top_p `(B,)`, float64; top_k `(B,)`, int64; limit `(B,)`, float64, the
    `rejection_count`; widest: a number that no top_k exceeds, known without asking the device."""

    top_p: Tensor
    top_k: Tensor
    limit: Tensor
    widest: int

    @classmethod
    def of(cls, configs: Sequence[SamplingConfig], device: torch.device | None = None) -> Rules:
        """One config per row, at least one row."""
        return cls(
            top_p=torch.tensor([config.top_p for config in configs], dtype=torch.float64, device=device),
            top_k=torch.tensor([config.top_k for config in configs], device=device),
            limit=torch.tensor([rejection_count(config) for config in configs], dtype=torch.float64, device=device),
            widest=max(config.top_k for config in configs),
        )


@dataclass(frozen=True, slots=True)
class Nucleus:
    """The ids a first draw can give, per row: ids `(B, K)`, best first; their softmax mass `(B, K)`; the chance
    `(B, K)` that the first draw gives them, zero for candidates that top-p or top-k left out; the logarithm of the
    sum that the softmax divides by, `(B, 1)`. Float64."""

    ids: Tensor
    mass: Tensor
    chance: Tensor
    log_sum: Tensor


@dataclass(frozen=True, slots=True)
class Mixture:
    """The distribution of the id that RAS finally gives, per row.

    ids: the nucleus `(B, K)`; banned: which of them were said lately, so that drawing one means drawing again; near:
    their probabilities `(B, K)`; spread: `(B,)`, what the softmax mass of every other id is multiplied with, zero
    where nothing is banned. Float64.
    """

    ids: Tensor
    banned: Tensor
    near: Tensor
    spread: Tensor

    def over(self, scores: Tensor) -> Tensor:
        """Probabilities `(B, V)` of the whole vocabulary, float64, for the scores `(B, V)` this was made from."""
        return (scores.double().softmax(1) * self.spread[:, None]).scatter(1, self.ids, self.near)

    def rows(self, index: Tensor) -> Mixture:
        """The rows that `index` names."""
        return Mixture(self.ids[index], self.banned[index], self.near[index], self.spread[index])


def nucleus(scores: Tensor, rules: Rules) -> Nucleus:
    """Nucleus of unnormalised log scores `(B, V)`.

    By descending score, equal scores by ascending id: an id enters while the mass before it is below top_p and
    fewer than top_k are in, so the id that crosses top_p is in.
    """
    ids = _best(scores, min(rules.widest, scores.shape[1]))
    wide = scores.double()
    log_sum = wide.logsumexp(1, keepdim=True)
    mass = torch.exp(wide.gather(1, ids) - log_sum)
    ranks = torch.arange(ids.shape[1], device=ids.device)
    enters = (_sum_before(mass) < rules.top_p[:, None]) & (ranks < rules.top_k[:, None])
    taken = torch.where(enters, mass, 0.0)
    return Nucleus(ids, mass, taken / taken.sum(1, keepdim=True), log_sum)


def mixture(scores: Tensor, recent: Tensor, rules: Rules) -> Mixture:
    """RAS over scores `(B, V)`, -inf where an id is masked; recent: ids `(B, W)` generated lately, -1 where none.

    With q the nucleus chances, p the softmax and R the nucleus ids that occur at least `limit` times among the
    recent ones: `P(j) = q_j [j not in R] + p_j * sum over i in R, i != j of q_i / (1 - p_i)`. An id that has all
    the mass there is stays out of R: nothing else could be drawn in its place.
    """
    found = nucleus(scores, rules)
    counts = (found.ids[:, :, None] == recent[:, None, :]).sum(2)
    others = 1.0 - found.mass
    # Only the best id can be so likely that 1 - p loses its digits; the others' mass is then summed itself.
    rest = scores.double().scatter(1, found.ids[:, :1], -torch.inf)
    others[:, :1] = torch.exp(rest.logsumexp(1, keepdim=True) - found.log_sum)
    banned = (counts >= rules.limit[:, None]) & (others > 0.0) & (found.chance > 0.0)
    weight = torch.where(banned, found.chance / others, 0.0)
    first = torch.where(banned, 0.0, found.chance)
    # What the others hand on is summed, not taken as the difference of the total and one's own: that would cancel.
    again = found.mass * (_sum_before(weight) + _sum_before(weight.flip(1)).flip(1))
    return Mixture(found.ids, banned, first + again, weight.sum(1))


def _best(scores: Tensor, count: int) -> Tensor:
    """Ids `(B, count)` of the highest scores, best first, equal ones by ascending id.

    `topk` takes any of equal scores, so it only finds the score of the last one that is in; a second one chooses by
    numbers that are all different.
    """
    width = scores.shape[1]
    least = scores.topk(count, 1).values[:, -1:]
    earlier = torch.arange(width, 0, -1, device=scores.device)
    ids = torch.where(scores > least, earlier + width, torch.where(scores < least, 0, earlier)).topk(count, 1).indices
    order = scores.gather(1, ids).sort(dim=1, descending=True, stable=True).indices
    return ids.gather(1, order)


def _sum_before(values: Tensor) -> Tensor:
    """Sum of all entries of the row `(B, K)` left of each."""
    sums = values.cumsum(1).roll(1, 1)
    sums[:, :1] = 0.0
    return sums
