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

    @property
    def width(self) -> int:
        """Earlier input frames that an output frame sees."""
        return self.kernel_size[0] - 1

    def freeze(self) -> None:
        self._product_weight = _product(self.weight.detach()).contiguous()

    def forward(self, x: Tensor, cache: LayerCaches | None = None) -> Tensor:
        """x (B, T, in) -> (B, T, out); what precedes x comes from the cache, or is zero."""
        return self.over(_joined(x, self.width, cache))

    def over(self, joined: Tensor) -> Tensor:
        """No padding: (B, T + k - 1, in) -> (B, T, out)."""
        weight = self._product_weight
        return F.linear(
            _columns(joined, self.kernel_size[0]), _product(self.weight) if weight is None else weight, self.bias
        )


class SplitCausalConv(CausalConv):
    """A causal convolution whose first `moving` input channels change from call to call while the others stay.

    The sum of `over_moving` and `over_fixed` is the whole convolution, so that what the fixed channels add is computed
    once for all calls.
    """

    _moving_weight: Tensor | None
    _fixed_weight: Tensor | None

    def __init__(self, moving: int, fixed: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(moving + fixed, out_channels, kernel_size)
        self.moving = moving
        self.register_buffer("_moving_weight", None, persistent=False)
        self.register_buffer("_fixed_weight", None, persistent=False)

    def freeze(self) -> None:
        self._moving_weight = _product(self.weight.detach()[:, : self.moving]).contiguous()
        self._fixed_weight = _product(self.weight.detach()[:, self.moving :]).contiguous()

    def over_moving(self, x: Tensor, cache: LayerCaches | None) -> Tensor:
        """x (B, T, moving) -> (B, T, out), without bias."""
        weight = self._moving_weight
        columns = _columns(_joined(x, self.width, cache), self.kernel_size[0])
        return F.linear(columns, _product(self.weight[:, : self.moving]) if weight is None else weight)

    def over_fixed(self, x: Tensor, cache: LayerCaches | None) -> Tensor:
        """x (B, T, fixed) -> (B, T, out), with bias."""
        weight = self._fixed_weight
        columns = _columns(_joined(x, self.width, cache), self.kernel_size[0])
        return F.linear(columns, _product(self.weight[:, self.moving :]) if weight is None else weight, self.bias)


def freeze_convolutions(module: nn.Module) -> None:
    """Prepare every convolution of a loaded module for inference."""
    for child in module.modules():
        if isinstance(child, CausalConv):
            child.freeze()


def _product(weight: Tensor) -> Tensor:
    """(out, in, k) -> (out, k * in)."""
    return weight.transpose(1, 2).flatten(1)


def _joined(x: Tensor, width: int, cache: LayerCaches | None) -> Tensor:
    return F.pad(x, (0, 0, width, 0)) if cache is None else cache.tail(width).extend(x)


def _columns(joined: Tensor, width: int) -> Tensor:
    """(B, T + k - 1, C) -> (B, T, k * C)."""
    frames = joined.shape[1] - width + 1
    return torch.cat([joined[:, k : k + frames] for k in range(width)], dim=2)
