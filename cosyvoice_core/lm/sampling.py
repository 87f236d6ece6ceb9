"""Repetition-aware sampling of plain lists of ids with one config for all rows.

The distribution itself is in `ras.py`; here are the tables it wants. Source: docs/model.md, "Sampling (RAS)".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.lm import ras
from cosyvoice_core.lm.ras import Mixture, Nucleus, Rules


def recent_ids(windows: Sequence[Sequence[int]], widths: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Table `(B, W)` of the last `width` ids of every row's window, padded with -1."""
    recent = [list(window[-width:]) if width else [] for window, width in zip(windows, widths, strict=True)]
    longest = max((len(window) for window in recent), default=0)
    padded = [[*window, *([-1] * (longest - len(window)))] for window in recent]
    return torch.tensor(padded, dtype=torch.long, device=device).view(len(recent), longest)


def tempered(scores: Tensor, configs: Sequence[SamplingConfig]) -> Tensor:
    """Scores `(B, V)` divided by their row's temperature; the very same where all temperatures are 1."""
    if all(config.temperature == 1.0 for config in configs):
        return scores
    return scores / scores.new_tensor([config.temperature for config in configs])[:, None]


def nucleus(scores: Tensor, config: SamplingConfig) -> Nucleus:
    """`ras.nucleus` of scores `(B, V)`, tempered already, with one config."""
    return ras.nucleus(scores, Rules.of([config] * len(scores), scores.device))


def mixture(scores: Tensor, windows: Sequence[Sequence[int]], config: SamplingConfig) -> Mixture:
    """`ras.mixture` of scores `(B, V)`, tempered already; windows: ids generated so far, oldest first, per row."""
    recent = recent_ids(windows, [config.window] * len(scores), scores.device)
    return ras.mixture(scores, recent, Rules.of([config] * len(scores), scores.device))


def ras_probabilities(scores: Tensor, windows: Sequence[Sequence[int]], config: SamplingConfig) -> Tensor:
    """RAS at the config's temperature, over the whole vocabulary: probabilities `(B, V)`, float64."""
    scores = tempered(scores, [config] * len(scores))
    return mixture(scores, windows, config).over(scores)
