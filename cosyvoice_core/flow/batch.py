"""Caches of several streams behind the interface of one, so that one pass serves chunks of all of them.

Rows of one stream lie together; everything but attention runs on all rows at once, attention on each stream's own
past. Knows neither solver nor schedule.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.cache import KVCache, StackCache, TailCache


class BatchTail:
    """One convolution's tails of all streams."""

    def __init__(self, tails: Sequence[TailCache], rows: int) -> None:
        self._tails = tails
        self._sizes = [rows] * len(tails)

    def extend(self, x: Tensor) -> Tensor:
        kept = [tail.kept(part) for tail, part in zip(self._tails, x.split_with_sizes(self._sizes), strict=True)]
        joined = torch.cat((torch.cat(kept), x), dim=1)
        ends = joined[:, joined.shape[1] - kept[0].shape[1] :].clone()
        for tail, frames in zip(self._tails, ends.split_with_sizes(self._sizes), strict=True):
            tail.frames = frames
        return joined


class BatchAttention:
    """One attention layer's keys and values of all streams."""

    def __init__(self, layers: Sequence[KVCache], rows: int, valid: Sequence[int]) -> None:
        self._layers = layers
        self._sizes = [rows] * len(layers)
        self._valid = valid

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` must be None: a batch holds one chunk of each stream, which sees all of itself and its past."""
        assert mask is None
        out = torch.empty_like(q)
        parts = zip(self._layers, self._valid, *(x.split_with_sizes(self._sizes) for x in (q, k, v, out)), strict=True)
        for layer, valid, queries, keys, values, result in parts:
            keys, values = layer.extend(keys[:, :, :valid], values[:, :, :valid])
            result.copy_(F.scaled_dot_product_attention(queries, keys, values))
        return out


class BatchCache:
    """`LayerCaches` of a batch: `rows` rows for each stream, of which the first `valid` frames are not padding.

    Only a stream's last chunk may be padded. Its tails then hold padding, which nobody reads: nothing follows it.
    """

    def __init__(self, caches: Sequence[StackCache], rows: int, valid: Sequence[int]) -> None:
        self._caches = caches
        self._rows = rows
        self._valid = valid

    def rewind(self) -> None:
        for cache in self._caches:
            cache.rewind()

    def tail(self, width: int) -> BatchTail:
        return BatchTail([cache.tail(width) for cache in self._caches], self._rows)

    def attention(self) -> BatchAttention:
        return BatchAttention([cache.attention() for cache in self._caches], self._rows, self._valid)
