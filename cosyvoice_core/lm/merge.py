"""The tensors of `llm.pt` under the names of a plain decoder over merged ids.

Every backend of the LM starts from what this returns. Knows key names and shapes, not how they are computed
with. Source: docs/model.md, "Checkpoint files" and "Merged vocabulary".
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cosyvoice_core.checkpoint.layout import TEXT_EMBEDDING, TIED_HEAD, Shape, lm_layout
from cosyvoice_core.checkpoint.tensors import require_shapes
from cosyvoice_core.config import LMConfig
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

BODY_PREFIX = "llm.model."
SPEECH_EMBEDDING = "speech_embedding.weight"
MARKER_EMBEDDING = "llm_embedding.weight"
HEAD_WEIGHT = "llm_decoder.weight"
HEAD_BIAS = "llm_decoder.bias"


def checkpoint_layout(config: LMConfig, vocabulary: SpeechVocabulary) -> dict[str, Shape]:
    """Key -> shape of `llm.pt` of the family that `vocabulary` belongs to."""
    layout = lm_layout(config)
    layout[SPEECH_EMBEDDING] = layout[HEAD_WEIGHT] = (vocabulary.head_rows, config.hidden)
    layout[HEAD_BIAS] = (vocabulary.head_rows,)
    if not vocabulary.head_bias:
        del layout[HEAD_BIAS]
    if not vocabulary.marker_rows:
        del layout[MARKER_EMBEDDING]
    return layout


def merge(
    state: Mapping[str, Tensor],
    config: LMConfig,
    vocabulary: SpeechVocabulary,
    source: str = "llm.pt",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Rename and join `state` into `model.embed_tokens`, `model.layers.*`, `model.norm` and `lm_head`.

    The input table is speech rows, marker rows (CosyVoice2 only), text rows: `(input_rows, hidden)`; the head is
    `(head_rows, hidden)`, with a bias in CosyVoice2. The text head is dropped: it is tied to the text rows and never
    used, so a file may also lack it. Raises CheckpointError when a tensor is missing, unexpected or mis-shaped.
    """
    if vocabulary.text_rows != config.text_rows:
        raise ValueError(f"vocabulary has {vocabulary.text_rows} text rows, the config {config.text_rows}")
    layout = checkpoint_layout(config, vocabulary)
    if TIED_HEAD not in state:
        del layout[TIED_HEAD]
    require_shapes(layout, state, source)
    tables = [SPEECH_EMBEDDING, *([MARKER_EMBEDDING] if vocabulary.marker_rows else []), TEXT_EMBEDDING]
    merged = {
        "model.embed_tokens.weight": torch.cat([state[key].to(dtype) for key in tables]),
        "lm_head.weight": state[HEAD_WEIGHT].to(dtype),
    }
    if vocabulary.head_bias:
        merged["lm_head.bias"] = state[HEAD_BIAS].to(dtype)
    for key, value in state.items():
        if key.startswith(BODY_PREFIX) and key not in (TEXT_EMBEDDING, TIED_HEAD):
            merged[key.removeprefix(BODY_PREFIX)] = value.to(dtype)
    return merged
