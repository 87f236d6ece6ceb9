"""Estimator of the flow's velocity: a U-Net of causal residual blocks and transformers without any resampling.

Knows nothing of the ODE or of guidance: one call is one evaluation for rows that may each have a time of their own.
What depends on mu, speaker and prompt alone is computed once (`conditions`) for all evaluations of the same frames.
Everything is (B, T, C). Source: docs/model.md, "Estimator".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.cache import LayerCaches
from cosyvoice_core.flow.convolution import CausalConv
from cosyvoice_core.flow.masks import chunk_mask, with_padding
from cosyvoice_core.flow.residual import Block, Conditions, EntryResnet, Resnet, TimeMLP, masked
from cosyvoice_core.flow.transformer import TransformerBlock


class Estimator(nn.Module):
    """Velocity of x at time t under the conditions mu, speaker and prompt mel."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        channels, bins, time_dim = config.channels, config.mel_bins, config.time_embedding_dim
        self.chunk = config.chunk_frames

        def transformers() -> nn.ModuleList:
            return nn.ModuleList(
                TransformerBlock(channels, config.estimator_heads, config.estimator_head_dim)
                for _ in range(config.blocks_per_stage)
            )

        def stage(resnet: nn.Module, *rest: nn.Module) -> nn.ModuleList:
            return nn.ModuleList([resnet, transformers(), *rest])

        entry = EntryResnet(bins, config.estimator_in_channels - bins, channels, time_dim)
        self.time_mlp = TimeMLP(config.estimator_in_channels, time_dim)
        self.down_blocks = nn.ModuleList([stage(entry, CausalConv(channels, channels, 3))])
        self.mid_blocks = nn.ModuleList([stage(Resnet(channels, channels, time_dim)) for _ in range(config.mid_stages)])
        self.up_blocks = nn.ModuleList(
            [stage(Resnet(2 * channels, channels, time_dim), CausalConv(channels, channels, 3))]
        )
        self.final_block = Block(channels, channels)
        self.final_proj = nn.Conv1d(channels, config.mel_bins, 1)

    @property
    def attention_layers(self) -> int:
        return sum(len(_modules(stage[1])) for stage in self._stages())

    @property
    def tail_channels(self) -> tuple[int, ...]:
        """Input channels of each convolution that keeps frames between chunks, in the order they run."""
        entry, _, down_conv = self._entry()
        up, _, up_conv = _modules(self.up_blocks[0])
        mids = [_modules(stage)[0] for stage in self.mid_blocks]
        assert isinstance(down_conv, CausalConv)
        assert isinstance(up_conv, CausalConv)
        first = (entry.moving, entry.block2.conv.in_channels, down_conv.in_channels)
        inner = [block.conv.in_channels for resnet in (*mids, up) for block in _blocks(resnet)]
        return (*first, *inner, up_conv.in_channels, self.final_block.conv.in_channels)

    def project_time(self, t: Tensor) -> list[Tensor]:
        """Time (B,) to what each residual block adds, in the order they run; constant for a fixed time grid."""
        embedding = self.time_mlp(t)
        projections = []
        for stage in self._stages():
            resnet = stage[0]
            assert isinstance(resnet, EntryResnet | Resnet)
            projections.append(resnet.project_time(embedding))
        return projections

    def conditions(
        self,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        *,
        valid: Tensor | None = None,
        cache: LayerCaches | None = None,
    ) -> Conditions:
        """What mu, condition (B, T, bins) and speaker (B, bins) add; earlier frames from the cache, or zero."""
        if cache is not None:
            cache.rewind()
        fixed = torch.cat((mu, speaker[:, None].expand(-1, mu.shape[1], -1), condition), dim=2)
        return self._entry()[0].conditions(fixed, valid, cache)

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
    ) -> Tensor:
        """Velocity (B, T, bins) of whole sequences.

        x, mu, condition (B, T, bins); speaker (B, bins); times from `project_time`; valid (B, T) bool marks frames
        that are not padding (padded frames come out as zero).
        """
        conditions = self.conditions(mu, speaker, condition, valid=valid)
        return self.velocity(x, conditions, times, streaming=streaming, valid=valid)

    def velocity(
        self,
        x: Tensor,
        conditions: Conditions,
        times: Sequence[Tensor],
        *,
        streaming: bool = False,
        valid: Tensor | None = None,
        cache: LayerCaches | None = None,
    ) -> Tensor:
        """Velocity (B, T, bins) of x (B, T, bins) under conditions that were computed before.

        With a cache the frames go on from what it holds, and the cache knows which of them see which.
        """
        if cache is not None:
            cache.rewind()
        mask = chunk_mask(0, x.shape[1], x.shape[1], self.chunk, x.device) if streaming else None
        mask = with_padding(mask, valid)

        def transformed(h: Tensor, blocks: nn.Module) -> Tensor:
            for block in _modules(blocks):
                h = block(h, mask, cache)
            return h

        entry, down_transformers, down_conv = self._entry()
        up, up_transformers, up_conv = _modules(self.up_blocks[0])
        step = iter(times)
        h = transformed(entry(x, conditions, next(step), valid, cache), down_transformers)
        skip = h
        h = down_conv(masked(h, valid), cache)
        for stage in self.mid_blocks:
            resnet, transformers = _modules(stage)
            h = transformed(resnet(h, next(step), valid, cache), transformers)
        h = transformed(up(torch.cat((h, skip), dim=2), next(step), valid, cache), up_transformers)
        h = up_conv(masked(h, valid), cache)
        h = self.final_block(h, valid, cache)
        out = F.linear(masked(h, valid), self.final_proj.weight[:, :, 0], self.final_proj.bias)
        return masked(out, valid)

    def _stages(self) -> list[list[nn.Module]]:
        return [_modules(stage) for stage in (*self.down_blocks, *self.mid_blocks, *self.up_blocks)]

    def _entry(self) -> tuple[EntryResnet, nn.Module, nn.Module]:
        entry, transformers, conv = _modules(self.down_blocks[0])
        assert isinstance(entry, EntryResnet)
        return entry, transformers, conv


def _blocks(resnet: nn.Module) -> tuple[Block, Block]:
    assert isinstance(resnet, Resnet)
    return resnet.block1, resnet.block2


def _modules(stage: nn.Module) -> list[nn.Module]:
    assert isinstance(stage, nn.ModuleList)
    return list(stage)
