"""Checkpoints with seeded random weights, in the official format, of any dimensions.

They make noise instead of speech, at a sane level, and serve tests and measurements. Every bias and gain is random,
so that a parameter that is forgotten or misplaced shows. Does not know what the networks compute.
Source: docs/model.md, "Checkpoint files".
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cosyvoice_core.checkpoint.directory import FRONT_END, CheckpointDirectory
from cosyvoice_core.checkpoint.layout import (
    DIRECTION,
    MAGNITUDE,
    TEXT_EMBEDDING,
    TIED_HEAD,
    Shape,
    flow_layout,
    lm_layout,
    vocoder_layout,
)
from cosyvoice_core.checkpoint.official_yaml import official_yaml
from cosyvoice_core.checkpoint.qwen_config import qwen_config
from cosyvoice_core.checkpoint.settings import read_lm_config
from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, VocoderConfig

TINY = ModelConfig(
    lm=LMConfig(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=16, intermediate=128, text_rows=640),
    flow=FlowConfig(
        encoder_dim=48,
        encoder_heads=4,
        encoder_ffn=96,
        encoder_blocks=2,
        upsampled_blocks=1,
        channels=48,
        estimator_heads=2,
        estimator_head_dim=16,
        blocks_per_stage=1,
        mid_stages=2,
    ),
    vocoder=VocoderConfig(base_channels=32, f0_channels=24),
)
"""Smaller than the demo checkpoint in every part; its text rows are those of the demo's tokenizer."""

_CONFIG_KEPT = ("architectures", "bos_token_id", "eos_token_id")

_GAINS = {
    "llm_decoder": 3.0,
    "f0_predictor.classifier": 15.0,
    "conv_post": 0.35,
}
"""Size of a layer's output for inputs of size one, by the start of its key; `_RESIDUAL` and then 1 for all others.
Speech logits are spread enough to tell ids apart, f0 moves by some 10 Hz, log magnitudes by some 3 dB."""

_RESIDUAL = 0.3
"""Gain of a vocoder convolution that is added to its own input, nine times in a row."""


def tiny_config(front_end: Path) -> ModelConfig:
    """TINY with as many text rows as the tokenizer of the checkpoint `front_end` asks for."""
    text_rows = read_lm_config(CheckpointDirectory(front_end).lm_config).text_rows
    return replace(TINY, lm=replace(TINY.lm, text_rows=text_rows))


def write_random_checkpoint(
    directory: Path,
    config: ModelConfig,
    *,
    seed: int,
    front_end: Path,
    dtype: torch.dtype = torch.float32,
) -> CheckpointDirectory:
    """Write a whole checkpoint of the dimensions `config` into `directory`.

    The same seed gives the same tensors. Tokenizer files, both ONNX models and saved voices are copied from the
    checkpoint directory `front_end`, whose text ids must fit `config.lm.text_rows`. One file's tensors are in
    memory at a time: about 2 GB at the official size.

    Raises ValueError when the front end has more text ids than `config`, CheckpointError when it is incomplete.
    """
    source, target = CheckpointDirectory(front_end), CheckpointDirectory(directory)
    source.verify(FRONT_END)
    rows = read_lm_config(source.lm_config).text_rows
    if rows > config.lm.text_rows:
        raise ValueError(f"{front_end} has {rows} text rows, the config only {config.lm.text_rows}")
    _copy_front_end(source, target)
    target.settings.write_text(official_yaml(config), encoding="utf-8")
    target.lm_config.write_text(json.dumps(_qwen_config(config.lm, source.lm_config), indent=1), encoding="utf-8")
    for path, layout in (
        (target.llm, lm_layout(config.lm)),
        (target.flow, flow_layout(config.flow)),
        (target.vocoder, vocoder_layout(config.vocoder)),
    ):
        torch.save(random_state(layout, seed, path.name, dtype), path)
    return target


def _copy_front_end(source: CheckpointDirectory, target: CheckpointDirectory) -> None:
    target.tokenizer.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.tokenizer.iterdir()):
        if path.is_file() and path.suffix != ".safetensors" and path != source.lm_config:
            shutil.copyfile(path, target.tokenizer / path.name)
    shutil.copyfile(source.speaker_encoder, target.speaker_encoder)
    shutil.copyfile(source.speech_tokenizer, target.speech_tokenizer)
    if source.saved_voices is not None:
        shutil.copyfile(source.saved_voices, target.path / source.saved_voices.name)


def _qwen_config(config: LMConfig, source: Path) -> dict[str, object]:
    kept = json.loads(source.read_text(encoding="utf-8"))
    return {
        **{key: kept[key] for key in _CONFIG_KEPT if key in kept},
        **qwen_config(config),
        "sliding_window": config.max_positions,
    }


def random_state(
    layout: Mapping[str, Shape], seed: int, file: str, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Tensors of one file of a checkpoint, by key, as `write_random_checkpoint` writes them."""
    state: dict[str, Tensor] = {}
    for key, shape in layout.items():
        if key == TIED_HEAD:
            state[key] = state[TEXT_EMBEDDING]
            continue
        # Drawn by name, so that a tensor does not depend on which others the dimensions bring before it.
        digest = hashlib.sha256(f"{seed}/{file}/{key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        normal = torch.randn(shape, generator=generator)
        state[key] = _scaled(key, normal, layout).to(dtype)
    return state


def _scaled(key: str, normal: Tensor, layout: Mapping[str, Shape]) -> Tensor:
    """Standard normal values brought to the size that suits what `key` is."""
    if key.endswith(DIRECTION):
        return normal
    if key.endswith(MAGNITUDE):
        magnitude = _weight_norm_magnitude(
            layout[key.removesuffix(MAGNITUDE) + DIRECTION], transposed=key.startswith("ups.")
        )
        return normal.mul_(0.1).exp_().mul_(_gain(key) * magnitude)
    if key.endswith(".alpha"):
        return normal.mul_(0.2).exp_()
    if "embed" in key and normal.dim() == 2 and not key.startswith(("spk_embed", "encoder.")):
        return normal
    if "pos_bias" in key:
        return normal.mul_(0.2)
    if key.endswith(".bias"):
        return _bias(key, normal)
    if normal.dim() == 1:
        return normal.mul_(0.1).add_(1.0)
    return normal.mul_(_gain(key) / math.sqrt(math.prod(normal.shape[1:])))


def _weight_norm_magnitude(weight: Shape, *, transposed: bool) -> float:
    """Norm over all dims but the first that keeps the size of a signal.

    A plain convolution sums over everything but dim 0, its output channels. A transposed one has its input channels
    there, and kernel and stride let about two taps of each meet in an output sample.
    """
    return math.sqrt(weight[1] * weight[2] / (2 * weight[0])) if transposed else 1.0


def _gain(key: str) -> float:
    for start, gain in _GAINS.items():
        if key.startswith(start):
            return gain
    return _RESIDUAL if "resblocks" in key else 1.0


def _bias(key: str, normal: Tensor) -> Tensor:
    if key == "f0_predictor.classifier.bias":
        return normal.mul_(10.0).add_(140.0)
    normal.mul_(0.1)
    if key == "conv_post.bias":
        normal[: len(normal) // 2] -= 0.5
    return normal
