"""Left-padded convolution over time in (B, T, C) layout, run as one matrix product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.flow.cache import LayerCaches


class CausalConv(nn.Conv1d):
    """Convolution whose output frame t sees input frames t-k+1..t; weights keep the official (out, in, k) shape.

    After `freeze` the weight is also held as (out, k * in), the layout of the product, so that no call permutes it.
    """

    _product_weight: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.register_buffer("_product_weight", None, persistent=False)

    def freeze(self) -> None:
        self._product_weight = self._as_product_weight()

    def _as_product_weight(self) -> Tensor:
        return self.weight.detach().transpose(1, 2).flatten(1).contiguous()

    def forward(self, x: Tensor, cache: LayerCaches | None = None) -> Tensor:
        """x (B, T, in) -> (B, T, out); what precedes x comes from the cache, or is zero."""
        width = self.kernel_size[0] - 1
        joined = F.pad(x, (0, 0, width, 0)) if cache is None else cache.tail(width).extend(x)
        return self.over(joined)

    def over(self, joined: Tensor) -> Tensor:
        """No padding: (B, T + k - 1, in) -> (B, T, out)."""
        width = self.kernel_size[0]
        frames = joined.shape[1] - width + 1
        columns = torch.cat([joined[:, k : k + frames] for k in range(width)], dim=2)
        weight = self._product_weight
        return F.linear(columns, self.weight.transpose(1, 2).flatten(1) if weight is None else weight, self.bias)


def freeze_convolutions(module: nn.Module) -> None:
    """Prepare every convolution of a loaded module for inference."""
    for child in module.modules():
        if isinstance(child, CausalConv):
            child.freeze()
