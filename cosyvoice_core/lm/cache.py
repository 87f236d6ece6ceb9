"""Keys and values of one sequence. Knows neither tokens nor how attention reads it."""

from __future__ import annotations

import torch
from torch import Tensor

from cosyvoice_core.config import LMConfig

_FIRST_CAPACITY = 256


class KVCache:
    """Keys and values of every position fed so far, `(layers, 2, kv_heads, capacity, head_dim)`; grows by doubling.

    What it keeps is final: attention is causal, so nothing that is appended later can change the hidden state,
    hence the key and value, of an earlier position. `length` counts positions whose step has succeeded; rows
    past it are written again by the next step, so a failed step leaves nothing behind.
    """

    __slots__ = ("_data", "length")

    def __init__(self, config: LMConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.length = 0
        shape = (config.layers, 2, config.kv_heads, _FIRST_CAPACITY, config.head_dim)
        self._data = torch.empty(shape, device=device, dtype=dtype)

    @property
    def capacity(self) -> int:
        return self._data.shape[3]

    def reserve(self, length: int) -> None:
        """Make room for `length` positions, keeping what is there."""
        if length <= self.capacity:
            return
        capacity = max(length, 2 * self.capacity)
        grown = self._data.new_empty((*self._data.shape[:3], capacity, self._data.shape[4]))
        grown[..., : self.length, :] = self._data[..., : self.length, :]
        self._data = grown

    def write(self, layer: int, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store rows `(n, kv_heads, head_dim)` at `start`; return keys and values `(kv_heads, start + n, head_dim)`."""
        end = start + keys.shape[0]
        stored_keys, stored_values = self._data[layer].unbind(0)
        stored_keys[:, start:end] = keys.transpose(0, 1)
        stored_values[:, start:end] = values.transpose(0, 1)
        return stored_keys[:, :end], stored_values[:, :end]
