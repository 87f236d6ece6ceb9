"""The tensors of `llm.pt` under the names of a plain decoder over merged ids.

Every backend of the LM starts from what this returns. Knows key names and shapes, not how they are computed
with. Source: docs/model.md, "Checkpoint files" and "Merged vocabulary".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import require_shapes
from cosyvoice_core.config import LMConfig
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

BODY_PREFIX = "llm.model.model."
TIED_HEAD = "llm.model.lm_head.weight"
TEXT_EMBEDDING = f"{BODY_PREFIX}embed_tokens.weight"
FINAL_NORM = f"{BODY_PREFIX}norm.weight"
SPEECH_EMBEDDING = "speech_embedding.weight"
MARKER_EMBEDDING = "llm_embedding.weight"
HEAD_WEIGHT = "llm_decoder.weight"
HEAD_BIAS = "llm_decoder.bias"


def layer_shapes(config: LMConfig) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor of one decoder layer, by its name inside the layer."""
    hidden, queries, keys = config.hidden, config.heads * config.head_dim, config.kv_heads * config.head_dim
    return {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.q_proj.bias": (queries,),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.k_proj.bias": (keys,),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.v_proj.bias": (keys,),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (config.intermediate, hidden),
        "mlp.up_proj.weight": (config.intermediate, hidden),
        "mlp.down_proj.weight": (hidden, config.intermediate),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }


def checkpoint_shapes(config: LMConfig, vocabulary: SpeechVocabulary) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor `llm.pt` must hold, by its official key."""
    shapes: dict[str, tuple[int, ...]] = {
        TEXT_EMBEDDING: (config.text_rows, config.hidden),
        FINAL_NORM: (config.hidden,),
        TIED_HEAD: (config.text_rows, config.hidden),
        SPEECH_EMBEDDING: (vocabulary.head_rows, config.hidden),
        HEAD_WEIGHT: (vocabulary.head_rows, config.hidden),
    }
    if vocabulary.head_bias:
        shapes[HEAD_BIAS] = (vocabulary.head_rows,)
    if vocabulary.marker_rows:
        shapes[MARKER_EMBEDDING] = (vocabulary.marker_rows, config.hidden)
    for layer in range(config.layers):
        for name, shape in layer_shapes(config).items():
            shapes[f"{BODY_PREFIX}layers.{layer}.{name}"] = shape
    return shapes


def merge(
    state: Mapping[str, Tensor],
    config: LMConfig,
    vocabulary: SpeechVocabulary,
    source: str = "llm.pt",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Rename and join `state` into `model.embed_tokens`, `model.layers.*`, `model.norm` and `lm_head`.

    The input table is speech rows, marker rows (CosyVoice2 only), text rows: `(input_rows, hidden)`; the head is
    `(head_rows, hidden)`, with a bias in CosyVoice2. The text head, which is tied and never used, is dropped.
    Raises CheckpointError when a tensor is missing, unexpected or mis-shaped.
    """
    if vocabulary.text_rows != config.text_rows:
        raise ValueError(f"vocabulary has {vocabulary.text_rows} text rows, the config {config.text_rows}")
    require_shapes(checkpoint_shapes(config, vocabulary), state, source)
    tables = [SPEECH_EMBEDDING, *([MARKER_EMBEDDING] if vocabulary.marker_rows else []), TEXT_EMBEDDING]
    merged = {
        "model.embed_tokens.weight": torch.cat([state[key].to(dtype) for key in tables]),
        "model.norm.weight": state[FINAL_NORM].to(dtype),
        "lm_head.weight": state[HEAD_WEIGHT].to(dtype),
    }
    if vocabulary.head_bias:
        merged["lm_head.bias"] = state[HEAD_BIAS].to(dtype)
    for layer in range(config.layers):
        for name in layer_shapes(config):
            merged[f"model.layers.{layer}.{name}"] = state[f"{BODY_PREFIX}layers.{layer}.{name}"].to(dtype)
    return merged
