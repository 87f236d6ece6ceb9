"""Small models for attention kernels that know only some head widths: the same function, padded with zeros.

vLLM's CPU kernel has no heads narrower than 32, and its Qwen2 derives a head's width from the hidden width, so both are
widened by the same factor. CosyVoice2-0.5B (64 wide) never needs it; tiny checkpoints for tests do. Knows tensors only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import CheckpointError

CPU_HEAD_WIDTHS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Of vLLM 0.32's CPU attention."""
# Powers of four first: the square roots below are then exact.
_FACTORS = (1, 4, 16, 2, 8, 3, 5, 6, 7, 32)

_HEADS = re.compile(r"\.self_attn\.([qkv])_proj\.(weight|bias)$")


def widening_factor(config: LMConfig, widths: tuple[int, ...] = CPU_HEAD_WIDTHS) -> int:
    """By what heads must be widened to be among `widths`. Raises CheckpointError when nothing fits."""
    factor = next((factor for factor in _FACTORS if config.head_dim * factor in widths), None)
    if factor is None:
        raise CheckpointError(f"heads {config.head_dim} wide: the attention kernel has {widths}")
    if config.hidden != config.heads * config.head_dim:
        raise CheckpointError(f"hidden width {config.hidden} is not {config.heads} heads of {config.head_dim}")
    return factor


def widened_config(config: LMConfig, factor: int) -> LMConfig:
    return replace(
        config,
        hidden=config.hidden * factor,
        head_dim=config.head_dim * factor,
        # The mean of squares is taken over more entries, all new ones zero.
        rms_eps=config.rms_eps / factor,
    )


def widened(merged: Mapping[str, Tensor], config: LMConfig, factor: int) -> dict[str, Tensor]:
    """Tensors of `merge` for `widened_config`, computing the same scores.

    Entry i of a head moves to `factor * i`: rotary frequencies depend on i relative to the width, so each pair keeps
    its own. Queries make up for the attention scale, norms for the larger mean.
    """
    return dict(merged) if factor == 1 else {key: _tensor(key, value, config, factor) for key, value in merged.items()}


def _tensor(key: str, value: Tensor, config: LMConfig, factor: int) -> Tensor:
    more = config.hidden * (factor - 1)
    found = _HEADS.search(key)
    if found is not None:
        spread = _spread(value, 0, config.head_dim, factor)
        if found[1] == "q":
            spread = spread * math.sqrt(factor)
        return pad(spread, (0, more)) if found[2] == "weight" else spread
    if key.endswith(".self_attn.o_proj.weight"):
        return pad(_spread(value, 1, config.head_dim, factor), (0, 0, 0, more))
    if key.endswith("norm.weight"):
        return pad(value / math.sqrt(factor), (0, more))
    if key.endswith(".down_proj.weight"):
        return pad(value, (0, 0, 0, more))
    return value if key.endswith(".bias") else pad(value, (0, more))


def _spread(value: Tensor, axis: int, head_dim: int, factor: int) -> Tensor:
    """Zeros between the entries of each head along `axis`."""
    rows = value.shape[axis]
    heads = value.movedim(axis, 0).reshape(rows // head_dim, head_dim, 1, -1)
    wide = torch.cat([heads, heads.new_zeros(*heads.shape[:2], factor - 1, heads.shape[3])], 2)
    return wide.reshape(rows * factor, *value.movedim(axis, 0).shape[1:]).movedim(0, axis)
