"""Repetition-aware sampling (RAS) as one distribution, so that a single draw replaces the two-stage procedure.

The procedure: draw from the nucleus; when the drawn id is among the last generated ones, draw again from all
other ids. Knows scores and windows only: no seeds, no requests. Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.config import SamplingConfig


@dataclass(frozen=True, slots=True)
class Nucleus:
    """The ids a first draw can give, per row: ids `(B, K)`, best first; their softmax mass `(B, K)`; the chance
    `(B, K)` that the first draw gives them, zero for candidates that top-p left out. Float64."""

    ids: Tensor
    mass: Tensor
    chance: Tensor


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


def nucleus(scores: Tensor, config: SamplingConfig) -> Nucleus:
    """Nucleus of unnormalised log scores `(B, V)`.

    By descending score, equal scores by ascending id: an id enters while the mass before it is below top_p and
    fewer than top_k are in, so the id that crosses top_p is in.
    """
    ids = _best(scores, min(config.top_k, scores.shape[1]))
    wide = scores.double()
    mass = torch.exp(wide.gather(1, ids) - wide.logsumexp(1, keepdim=True))
    taken = torch.where(_sum_before(mass) < config.top_p, mass, 0.0)
    return Nucleus(ids, mass, taken / taken.sum(1, keepdim=True))


def mixture(scores: Tensor, windows: Sequence[Sequence[int]], config: SamplingConfig) -> Mixture:
    """RAS over scores `(B, V)`, -inf where an id is masked; windows: ids generated so far, oldest first, per row.

    With q the nucleus chances, p the softmax and R the nucleus ids that occur at least `window * tau` times among
    the last `window`: `P(j) = q_j [j not in R] + p_j * sum over i in R, i != j of q_i / (1 - p_i)`. A window of 0
    turns the treatment of repetitions off. An id that has all the mass there is stays out of R: nothing else
    could be drawn in its place.
    """
    found = nucleus(scores, config)
    repeated = _counts(found.ids, windows, config.window) >= config.window * config.tau
    if config.window == 0 or not bool(repeated.any()):
        return Mixture(found.ids, torch.zeros_like(repeated), found.chance, found.chance.new_zeros(len(scores)))
    wide = scores.double()
    others = 1.0 - found.mass
    # Only the best id can be so likely that 1 - p loses its digits; the others' mass is then summed itself.
    rest = wide.scatter(1, found.ids[:, :1], -torch.inf)
    others[:, 0] = torch.exp(rest.logsumexp(1) - wide.logsumexp(1))
    banned = repeated & (others > 0.0) & (found.chance > 0.0)
    weight = torch.where(banned, found.chance / others, 0.0)
    spread = weight.sum(1)
    first = torch.where(banned, 0.0, found.chance)
    # What the others hand on is summed, not taken as the difference of the total and one's own: that would cancel.
    again = found.mass * (_sum_before(weight) + _sum_before(weight.flip(1)).flip(1))
    return Mixture(found.ids, banned, first + again, spread)


def ras_probabilities(scores: Tensor, windows: Sequence[Sequence[int]], config: SamplingConfig) -> Tensor:
    """`mixture` written out over the whole vocabulary: probabilities `(B, V)`, float64."""
    mixed = mixture(scores, windows, config)
    return (scores.double().softmax(1) * mixed.spread[:, None]).scatter(1, mixed.ids, mixed.near)


def _best(scores: Tensor, count: int) -> Tensor:
    """Ids `(B, count)` of the highest scores, best first, equal ones by ascending id."""
    if count < scores.shape[1]:
        values, ids = scores.topk(count + 1, 1)
        if bool((values[:, -1] == values[:, -2]).any()):
            return scores.sort(dim=1, descending=True, stable=True).indices[:, :count]
        ids = ids[:, :count]
    else:
        ids = torch.arange(count, device=scores.device).expand(scores.shape[0], count)
    ids = ids.sort(dim=1).values
    order = scores.gather(1, ids).sort(dim=1, descending=True, stable=True).indices
    return ids.gather(1, order)


def _sum_before(values: Tensor) -> Tensor:
    """Sum of all entries of the row `(B, K)` left of each."""
    sums = values.cumsum(1).roll(1, 1)
    sums[:, 0] = 0.0
    return sums


def _counts(ids: Tensor, windows: Sequence[Sequence[int]], width: int) -> Tensor:
    """How often each of `ids` `(B, K)` occurs in the last `width` entries of its row's window."""
    recent = [list(window[-width:]) if width else [] for window in windows]
    longest = max((len(window) for window in recent), default=0)
    padded = [[*window, *([-1] * (longest - len(window)))] for window in recent]
    table = torch.tensor(padded, dtype=torch.long, device=ids.device).view(len(recent), longest)
    return (ids[:, :, None] == table[:, None, :]).sum(2)
