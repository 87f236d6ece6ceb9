"""Attention from one chunk to frames that lie in several pieces of memory, and the two forms of what is kept.

`KEYS_VALUES` keeps what attention reads. `INPUTS` keeps the layer's normalised input instead, of which keys and values
are linear maps without bias or position: one vector for all heads, a quarter of the memory for four times the
arithmetic of scores and sums. Knows nothing of streams. Source: docs/model.md, "Exact incremental computation".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.cache import AttentionLayer

Piece = tuple[Tensor, Tensor]
"""Keys and values, each (rows, heads, S, D)."""


class CacheForm(StrEnum):
    """What the estimator's attention keeps of a frame."""

    KEYS_VALUES = "full"
    INPUTS = "compact"

    def floats(self, config: FlowConfig) -> int:
        """Numbers kept of one frame, in one layer and row."""
        tensors, heads, width = self.shape(config)
        return tensors * heads * width

    def shape(self, config: FlowConfig) -> tuple[int, int, int]:
        """Tensors, heads and width of what is kept of a frame."""
        if self is CacheForm.INPUTS:
            return 1, 1, config.channels
        return 2, config.estimator_heads, config.estimator_head_dim


@dataclass(frozen=True, slots=True)
class Projected:
    """A layer's input in the terms of a form: queries (B, H, Q, D), and what is kept of it, each (B, H, T, D)."""

    queries: Tensor
    kept: tuple[Tensor, ...]


def project(form: CacheForm, layer: AttentionLayer, x: Tensor) -> Projected:
    """x (B, T, dim). In the form `INPUTS` all heads' queries stand in one row, as all read the same."""
    if form is CacheForm.KEYS_VALUES:
        return Projected(layer.queries(x), (layer.keys(x), layer.values(x)))
    return Projected(layer.input_queries(x).flatten(1, 2)[:, None], (x[:, None],))


def finish(form: CacheForm, layer: AttentionLayer, attended: Tensor) -> Tensor:
    """What attention gave, (B, H, Q, D), as (B, heads, T, head_dim)."""
    if form is CacheForm.KEYS_VALUES:
        return attended
    batch, _, _, width = attended.shape
    return layer.values_of_mixtures(attended.view(batch, layer.heads, -1, width))


def scale(config: FlowConfig) -> float:
    """Of the scores, in either form."""
    return float(config.estimator_head_dim**-0.5)


def attend(queries: Tensor, pieces: Sequence[Piece], scale: float, mask: Tensor | None = None) -> Tensor:
    """Softmax attention from queries (rows, heads, Q, D) to all pieces as if they were one.

    mask (Q, S) True where visible, over the pieces in order; None: everything is.
    On a CPU without a mask nothing is joined: each piece gives its own softmax and the logarithm of its sum, which
    together make the softmax over all (the way of FlashAttention, arXiv:2205.14135, section 3.1).
    """
    if len(pieces) == 1:
        keys, values = pieces[0]
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    if mask is not None or queries.device.type != "cpu":
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*pieces, strict=True))
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale)
    out, total = _with_sum(queries, *pieces[0], scale)
    for keys, values in pieces[1:]:
        more, more_total = _with_sum(queries, keys, values, scale)
        share = torch.sigmoid(more_total - total)
        out = torch.lerp(out, more, share[..., None].to(out.dtype))
        total = torch.logaddexp(total, more_total)
    return out


def _with_sum(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Attention and the logarithm of each query's sum of exponentials, (rows, heads, Q)."""
    out, total = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, keys, values, scale=scale)
    return out, total
