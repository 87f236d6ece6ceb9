"""Residual blocks of the estimator, and the time embedding they add. Source: docs/model.md, "Estimator"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.flow.cache import LayerCaches
from cosyvoice_core.flow.convolution import CausalConv, SplitCausalConv

_TIME_SCALE = 1000.0


def masked(x: Tensor, valid: Tensor | None) -> Tensor:
    """x (B, T, C) with zeros where valid (B, T) is False."""
    return x if valid is None else x * valid[:, :, None]


def time_sinusoid(t: Tensor, dim: int) -> Tensor:
    """Time (B,) in 0..1 to (B, dim): all sines, then all cosines."""
    half = dim // 2
    frequencies = torch.exp(
        torch.arange(half, device=t.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1))
    )
    angles = _TIME_SCALE * t[:, None] * frequencies
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class TimeMLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, hidden)
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, t: Tensor) -> Tensor:
        sinusoid = time_sinusoid(t, self.width).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(sinusoid)))
        return out


class Block(nn.Module):
    """Causal convolution, layer norm over channels, Mish."""

    def __init__(self, in_channels: int, out_channels: int, conv: CausalConv | None = None) -> None:
        super().__init__()
        conv = CausalConv(in_channels, out_channels, 3) if conv is None else conv
        self.block = nn.ModuleDict({"0": conv, "2": nn.LayerNorm(out_channels)})

    @property
    def conv(self) -> CausalConv:
        conv = self.block["0"]
        assert isinstance(conv, CausalConv)
        return conv

    def forward(self, x: Tensor, valid: Tensor | None, cache: LayerCaches | None) -> Tensor:
        return self.activated(self.conv(masked(x, valid), cache), valid)

    def activated(self, h: Tensor, valid: Tensor | None) -> Tensor:
        """What follows the convolution."""
        return masked(F.mish(self.block["2"](h)), valid)


class Resnet(nn.Module):
    """Two blocks with the time added between them, and a linear shortcut."""

    def __init__(self, in_channels: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.mlp = nn.ModuleDict({"1": nn.Linear(time_dim, out_channels)})
        self.block1 = Block(in_channels, out_channels)
        self.block2 = Block(out_channels, out_channels)
        self.res_conv = nn.Conv1d(in_channels, out_channels, 1)

    def project_time(self, embedding: Tensor) -> Tensor:
        """(B, time_dim) -> (B, out): what `forward` adds to every frame."""
        return _project_time(self.mlp, embedding)

    def forward(self, x: Tensor, time: Tensor, valid: Tensor | None, cache: LayerCaches | None) -> Tensor:
        h = self.block1(x, valid, cache) + time[:, None]
        h = self.block2(h, valid, cache)
        shortcut = F.linear(masked(x, valid), self.res_conv.weight[:, :, 0], self.res_conv.bias)
        out: Tensor = h + shortcut
        return out


@dataclass(frozen=True, slots=True)
class Conditions:
    """What mu, speaker and prompt add to the first residual block, each (B, T, channels), the same at every time."""

    block: Tensor
    shortcut: Tensor

    def padded(self, frames: int) -> Conditions:
        """With zeros behind the end, up to `frames`."""
        if frames == self.block.shape[1]:
            return self
        padding = (0, 0, 0, frames - self.block.shape[1])
        return Conditions(F.pad(self.block, padding), F.pad(self.shortcut, padding))

    def expanded(self, frames: int) -> Conditions:
        """One frame's, repeated."""
        return Conditions(self.block.expand(-1, frames, -1), self.shortcut.expand(-1, frames, -1))

    @classmethod
    def behind(cls, parts: Sequence[Conditions]) -> Conditions:
        """Of frames that follow each other."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.block for part in parts], 1), torch.cat([part.shortcut for part in parts], 1))

    @classmethod
    def rows(cls, parts: Sequence[Conditions]) -> Conditions:
        """Of different rows, all of one length."""
        return cls(torch.cat([part.block for part in parts]), torch.cat([part.shortcut for part in parts]))


class EntryResnet(nn.Module):
    """The first residual block: of its input only x, the `moving` channels, changes between evaluations."""

    def __init__(self, moving: int, fixed: int, out_channels: int, time_dim: int) -> None:
        super().__init__()
        self.moving = moving
        self.mlp = nn.ModuleDict({"1": nn.Linear(time_dim, out_channels)})
        self.block1 = Block(moving + fixed, out_channels, SplitCausalConv(moving, fixed, out_channels, 3))
        self.block2 = Block(out_channels, out_channels)
        self.res_conv = nn.Conv1d(moving + fixed, out_channels, 1)

    def project_time(self, embedding: Tensor) -> Tensor:
        """(B, time_dim) -> (B, out): what `forward` adds to every frame."""
        return _project_time(self.mlp, embedding)

    def conditions(self, fixed: Tensor, valid: Tensor | None, cache: LayerCaches | None) -> Conditions:
        """fixed (B, T, fixed channels); its earlier frames come from the cache, or are zero."""
        fixed = masked(fixed, valid)
        shortcut = F.linear(fixed, self.res_conv.weight[:, self.moving :, 0], self.res_conv.bias)
        return Conditions(self._conv.over_fixed(fixed, cache), shortcut)

    def forward(
        self, x: Tensor, conditions: Conditions, time: Tensor, valid: Tensor | None, cache: LayerCaches | None
    ) -> Tensor:
        """x (B, T, moving channels) -> (B, T, out)."""
        x = masked(x, valid)
        h = self.block1.activated(self._conv.over_moving(x, cache) + conditions.block, valid) + time[:, None]
        h = self.block2(h, valid, cache)
        out: Tensor = h + F.linear(x, self.res_conv.weight[:, : self.moving, 0]) + conditions.shortcut
        return out

    @property
    def _conv(self) -> SplitCausalConv:
        conv = self.block1.conv
        assert isinstance(conv, SplitCausalConv)
        return conv


def _project_time(mlp: nn.ModuleDict, embedding: Tensor) -> Tensor:
    out: Tensor = mlp["1"](F.mish(embedding))
    return out
