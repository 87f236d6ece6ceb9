"""What the stages of a Serve config take on a card, from dims and arguments alone, before anything is started.

Counts what is known to the byte: weights, and memory that is planned in bytes. What CUDA, libraries, graphs and the
tensors of one step take is a reserve that nobody has measured. Knows no cluster and no GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from cosyvoice_core.checkpoint.layout import TIED_HEAD, lm_layout
from cosyvoice_core.config import LMConfig, ModelConfig
from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.memory import form_within
from cosyvoice_core.flow.model import FlowModel, FlowNetwork
from cosyvoice_core.vocoder import Vocoder
from deployments.args import AppArgs, FlowArgs
from deployments.stage import resolve_dtype

RESERVE_BYTES = 3 * 2**29
"""Of each process on a card, for CUDA, libraries, graphs and one step's tensors. Judgement, not measured."""

LONG_UTTERANCE_S = 60
"""Length, prompt included, up to which the flow's first unconditional step is counted; it grows with the longest."""

_FULL_S = 30
"""With `cache_form: auto`, full caches are taken where memory holds utterances of this length."""

_CHUNK_S = 1
"""Of sound in a chunk: 25 tokens at 25 tokens/s."""


@dataclass(frozen=True, slots=True)
class StageBytes:
    """Of one replica, in bytes: weights as loaded, memory planned in bytes, what grows with the longest utterance."""

    weights: int
    planned: int = 0
    grows: int = 0

    @property
    def total(self) -> int:
        """With the reserve of its process."""
        return self.weights + self.planned + self.grows + RESERVE_BYTES


def kv_bytes(config: LMConfig, dtype: torch.dtype) -> int:
    """Of one position in the language model's KV cache."""
    return 2 * config.layers * config.kv_heads * config.head_dim * dtype.itemsize


def flow_model(config: ModelConfig, args: FlowArgs) -> FlowModel:
    """The flow with weights that have sizes but no memory."""
    with torch.device("meta"):
        network = FlowNetwork(config.flow)
    return FlowModel(network.to(resolve_dtype(args.dtype)), config.flow)


def cache_form(model: FlowModel, args: FlowArgs) -> CacheForm:
    """The form of caches that a replica takes with these arguments."""
    if args.cache_form != "auto":
        return CacheForm(args.cache_form)
    frames = args.max_batch * _FULL_S * model.config.chunk_frames // _CHUNK_S
    return form_within(model, args.cache_bytes, frames)


def stage_bytes(args: AppArgs, config: ModelConfig) -> dict[str, StageBytes]:
    """By name, for the deployments that may compute on a card."""
    lm = {name: shape for name, shape in lm_layout(config.lm).items() if name != TIED_HEAD}
    flow = flow_model(config, args.flow)
    return {
        "SpeechLM": StageBytes(
            _numbers(lm) * resolve_dtype(args.lm.dtype).itemsize, args.lm.vllm.kv_cache_memory_bytes
        ),
        "FlowDecoder": StageBytes(
            _held(flow.network),
            args.flow.cache_bytes + _gather_bytes(flow, args.flow),
            LONG_UTTERANCE_S * _unguided_second(flow),
        ),
        "Vocoder": StageBytes(_held(_vocoder(config))),
    }


def _unguided_second(flow: FlowModel) -> int:
    """Bytes that the first unconditional step keeps for each second: keys and values of one row in every layer."""
    config = flow.config
    layers = flow.network.decoder.estimator.attention_layers
    return CacheForm.KEYS_VALUES.floats(config) * layers * config.chunk_frames * flow.dtype.itemsize


def _gather_bytes(flow: FlowModel, args: FlowArgs) -> int:
    """Buffer of the largest step of fixed shape, which copies all rows' pages of one layer."""
    if args.graphs == "off":
        return 0
    frames = (1 + max(args.graph_pages)) * flow.config.chunk_frames
    return 2 * args.max_batch * frames * cache_form(flow, args).floats(flow.config) * flow.dtype.itemsize


def _vocoder(config: ModelConfig) -> nn.Module:
    with torch.device("meta"):
        return Vocoder(config.vocoder)


def _held(module: nn.Module) -> int:
    """Bytes of a module's tensors, with what it lays out anew when it is loaded."""
    return sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])


def _numbers(layout: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in layout.values())
