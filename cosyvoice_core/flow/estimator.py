"""Estimator of the flow's velocity: a U-Net of causal residual blocks and transformers without any resampling.

Knows nothing of the ODE or of guidance: one call is one evaluation for rows that may each have a time of their own.
Everything is (B, T, C). Source: docs/model.md, "Estimator".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.cache import LayerCaches
from cosyvoice_core.flow.convolution import CausalConv
from cosyvoice_core.flow.masks import chunk_mask, with_padding

_TIME_SCALE = 1000.0


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

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"0": CausalConv(in_channels, out_channels, 3), "2": nn.LayerNorm(out_channels)})

    def forward(self, x: Tensor, valid: Tensor | None, cache: LayerCaches | None) -> Tensor:
        return _masked(F.mish(self.block["2"](self.block["0"](_masked(x, valid), cache))), valid)


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
        out: Tensor = self.mlp["1"](F.mish(embedding))
        return out

    def forward(self, x: Tensor, time: Tensor, valid: Tensor | None, cache: LayerCaches | None) -> Tensor:
        h = self.block1(x, valid, cache) + time[:, None]
        h = self.block2(h, valid, cache)
        shortcut = F.linear(_masked(x, valid), self.res_conv.weight[:, :, 0], self.res_conv.bias)
        out: Tensor = h + shortcut
        return out


class Attention(nn.Module):
    """Multi-head attention without positions."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads = heads
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(dim, inner, bias=False)
        self.to_v = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(inner, dim)])

    def forward(self, x: Tensor, mask: Tensor | None, cache: LayerCaches | None) -> Tensor:
        q, k, v = (
            projection(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for projection in (self.to_q, self.to_k, self.to_v)
        )
        if cache is None:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            out = cache.attention().attend(q, k, v, mask)
        merged: Tensor = self.to_out[0](out.transpose(1, 2).flatten(2))
        return merged


class GeluProjection(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"0": GeluProjection(dim, 4 * dim), "2": nn.Linear(4 * dim, dim)})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net["2"](self.net["0"](x))
        return out


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward with residuals."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn1 = Attention(dim, heads, head_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.ff = FeedForward(dim)

    def forward(self, x: Tensor, mask: Tensor | None, cache: LayerCaches | None) -> Tensor:
        x = x + self.attn1(self.norm1(x), mask, cache)
        out: Tensor = x + self.ff(self.norm3(x))
        return out


class Estimator(nn.Module):
    """Velocity of x at time t under the conditions mu, speaker and prompt mel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        channels, time_dim = config.channels, config.time_embedding_dim
        self.chunk = config.chunk_frames

        def transformers() -> nn.ModuleList:
            return nn.ModuleList(
                TransformerBlock(channels, config.estimator_heads, config.estimator_head_dim)
                for _ in range(config.blocks_per_stage)
            )

        def stage(in_channels: int, *rest: nn.Module) -> nn.ModuleList:
            return nn.ModuleList([Resnet(in_channels, channels, time_dim), transformers(), *rest])

        self.time_mlp = TimeMLP(config.estimator_in_channels, time_dim)
        self.down_blocks = nn.ModuleList([stage(config.estimator_in_channels, CausalConv(channels, channels, 3))])
        self.mid_blocks = nn.ModuleList([stage(channels) for _ in range(config.mid_stages)])
        self.up_blocks = nn.ModuleList([stage(2 * channels, CausalConv(channels, channels, 3))])
        self.final_block = Block(channels, channels)
        self.final_proj = nn.Conv1d(channels, config.mel_bins, 1)

    def project_time(self, t: Tensor) -> list[Tensor]:
        """Time (B,) to what each residual block adds, in the order they run; constant for a fixed time grid."""
        embedding = self.time_mlp(t)
        projections = []
        for stage in (*self.down_blocks, *self.mid_blocks, *self.up_blocks):
            resnet = _modules(stage)[0]
            assert isinstance(resnet, Resnet)
            projections.append(resnet.project_time(embedding))
        return projections

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        times: Sequence[Tensor],
        *,
        streaming: bool,
        valid: Tensor | None = None,
        cache: LayerCaches | None = None,
    ) -> Tensor:
        """Velocity (B, T, bins).

        x, mu, condition (B, T, bins); speaker (B, bins); times from `project_time`; valid (B, T) bool marks frames
        that are not padding (padded frames come out as zero). With a cache the frames are one chunk, or the part of it
        there is at the end of speech: all of it sees all of itself and of what the cache holds.
        """
        if cache is not None:
            cache.rewind()
        frames = x.shape[1]
        mask = chunk_mask(0, frames, frames, self.chunk, x.device) if streaming else None
        mask = with_padding(mask, valid)
        h = torch.cat((x, mu, speaker[:, None].expand(-1, frames, -1), condition), dim=2)

        down, down_transformers, down_conv = _modules(self.down_blocks[0])
        up, up_transformers, up_conv = _modules(self.up_blocks[0])
        step = iter(times)
        h = self._stage(down, down_transformers, h, next(step), mask, valid, cache)
        skip = h
        h = down_conv(_masked(h, valid), cache)
        for stage in self.mid_blocks:
            resnet, transformers = _modules(stage)
            h = self._stage(resnet, transformers, h, next(step), mask, valid, cache)
        h = self._stage(up, up_transformers, torch.cat((h, skip), dim=2), next(step), mask, valid, cache)
        h = up_conv(_masked(h, valid), cache)
        h = self.final_block(h, valid, cache)
        out = F.linear(_masked(h, valid), self.final_proj.weight[:, :, 0], self.final_proj.bias)
        return _masked(out, valid)

    @staticmethod
    def _stage(
        resnet: nn.Module,
        transformers: nn.Module,
        h: Tensor,
        time: Tensor,
        mask: Tensor | None,
        valid: Tensor | None,
        cache: LayerCaches | None,
    ) -> Tensor:
        h = resnet(h, time, valid, cache)
        for block in _modules(transformers):
            h = block(h, mask, cache)
        return h


def _masked(x: Tensor, valid: Tensor | None) -> Tensor:
    return x if valid is None else x * valid[:, :, None]


def _modules(stage: nn.Module) -> list[nn.Module]:
    assert isinstance(stage, nn.ModuleList)
    return list(stage)
