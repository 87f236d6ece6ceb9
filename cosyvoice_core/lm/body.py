"""The Qwen2 decoder over merged ids, in plain torch, for a ragged batch of many sequences.

All linear layers run over the flat rows of the whole batch; attention runs per span of one sequence. Knows
nothing of requests, sampling or which ids mean what. Source: docs/model.md, "Speech-token LM".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.cache import KVCache

# On x86 a row of a float32 product comes out with the same bits in any batch whose row count is a multiple of
# four; fewer rows take other kernels. Padding to four makes a sequence independent of its company.
_CPU_ROW_MULTIPLE = 4


@dataclass(frozen=True, slots=True)
class Span:
    """`rows` consecutive positions of one sequence, from `start`; they see the cache up to themselves."""

    cache: KVCache
    start: int
    rows: int

    @property
    def end(self) -> int:
        return self.start + self.rows


@dataclass(frozen=True, slots=True)
class _Layer:
    """One decoder layer; q, k, v and gate, up are stacked so that each is one product."""

    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    attention_norm: Tensor
    mlp_norm: Tensor

    @classmethod
    def of(cls, merged: Mapping[str, Tensor], index: int, device: torch.device, dtype: torch.dtype) -> _Layer:
        def stacked(*names: str) -> Tensor:
            tensors = [merged[f"model.layers.{index}.{name}"] for name in names]
            return torch.cat(tensors).to(device, dtype).contiguous()

        projections = [f"self_attn.{name}_proj" for name in "qkv"]
        return cls(
            qkv=stacked(*(f"{name}.weight" for name in projections)),
            qkv_bias=stacked(*(f"{name}.bias" for name in projections)),
            out=stacked("self_attn.o_proj.weight"),
            gate_up=stacked("mlp.gate_proj.weight", "mlp.up_proj.weight"),
            down=stacked("mlp.down_proj.weight"),
            attention_norm=stacked("input_layernorm.weight"),
            mlp_norm=stacked("post_attention_layernorm.weight"),
        )


class SpeechBody:
    """Weights of the decoder and its head; holds no state of any sequence."""

    def __init__(
        self,
        merged: Mapping[str, Tensor],
        config: LMConfig,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Take the tensors that `merge` returned, on `device` as `dtype`."""
        self.config = config
        self.device = torch.device(device)
        self.dtype = dtype
        self._embedding = merged["model.embed_tokens.weight"].to(self.device, dtype)
        self._layers = [_Layer.of(merged, index, self.device, dtype) for index in range(config.layers)]
        self._norm = merged["model.norm.weight"].to(self.device, dtype)
        self._head = merged["lm_head.weight"].to(self.device, dtype)
        bias = merged.get("lm_head.bias")
        self._head_bias = None if bias is None else bias.to(self.device, dtype)
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
        self._inverse_frequencies = (1.0 / config.rope_theta**half).to(self.device)
        self._row_multiple = _CPU_ROW_MULTIPLE if self.row_exact else 1

    @property
    def row_exact(self) -> bool:
        """Whether a row's result is meant to have the same bits in any batch; accelerators pick kernels by size."""
        return self.device.type == "cpu"

    @property
    def input_rows(self) -> int:
        return self._embedding.shape[0]

    @property
    def head_rows(self) -> int:
        return self._head.shape[0]

    def new_cache(self) -> KVCache:
        return KVCache(self.config, self.device, self.dtype)

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Input rows `(N, hidden)` of merged ids. Raises InputError when an id has no row."""
        if any(not 0 <= id_ < self.input_rows for id_ in ids):
            raise InputError("prompt", "an id is not in the model's vocabulary", f"0..{self.input_rows - 1}")
        return F.embedding(torch.tensor(ids, dtype=torch.long, device=self.device), self._embedding)

    @torch.inference_mode()
    def forward(self, ids: Sequence[int], spans: Sequence[Span]) -> Tensor:
        """Hidden states `(N, hidden)` after the final norm of N merged ids, laid out span after span.

        Writes the keys and values of all rows; advancing each cache's `length` is left to the caller, who knows
        whether the whole step succeeded. Spans of one cache must come in order of position.
        """
        rows = sum(span.rows for span in spans)
        if rows != len(ids):
            raise ValueError(f"{len(ids)} ids for spans of {rows} rows")
        for span in spans:
            span.cache.reserve(span.end)
        padding = -rows % self._row_multiple
        positions = [position for span in spans for position in range(span.start, span.end)]
        x = self.embed([*ids, *([0] * padding)])
        rotation = self._rotation([*positions, *([0] * padding)])
        masks = [self._mask(span) for span in spans]
        for index, layer in enumerate(self._layers):
            qkv = F.linear(self._rms_norm(x, layer.attention_norm), layer.qkv, layer.qkv_bias)
            x = x + F.linear(self._attention(index, qkv, rotation, spans, masks), layer.out)
            gate, up = F.linear(self._rms_norm(x, layer.mlp_norm), layer.gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, layer.down)
        return self._rms_norm(x, self._norm)[:rows]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Scores `(B, head_rows)` in float32 of hidden states `(B, hidden)`."""
        rows = hidden.shape[0]
        padded = F.pad(hidden, (0, 0, 0, -rows % self._row_multiple))
        return F.linear(padded, self._head, self._head_bias)[:rows].float()

    def _attention(
        self,
        index: int,
        qkv: Tensor,
        rotation: tuple[Tensor, Tensor],
        spans: Sequence[Span],
        masks: Sequence[Tensor | None],
    ) -> Tensor:
        """Attended values `(N, heads * head_dim)` of layer `index`; rows of no span stay zero."""
        config = self.config
        heads = qkv.view(qkv.shape[0], config.heads + 2 * config.kv_heads, config.head_dim)
        rotated = _rotate(heads[:, : -config.kv_heads], rotation)
        queries, keys, values = rotated[:, : config.heads], rotated[:, config.heads :], heads[:, -config.kv_heads :]
        attended = torch.zeros(qkv.shape[0], config.heads * config.head_dim, device=qkv.device, dtype=qkv.dtype)
        first = 0
        for span, mask in zip(spans, masks, strict=True):
            rows = slice(first, first + span.rows)
            first += span.rows
            seen_keys, seen_values = span.cache.write(index, span.start, keys[rows], values[rows])
            attended[rows] = _attend(queries[rows], seen_keys, seen_values, mask)
        return attended

    def _rotation(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Cosine and sine `(N, 1, head_dim / 2)` of the rotary angles at `positions`."""
        steps = torch.tensor(positions, dtype=torch.float32, device=self.device)
        angles = torch.outer(steps, self._inverse_frequencies).unsqueeze(1)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def _mask(self, span: Span) -> Tensor | None:
        """True where a row of the span may look, `(rows, end)`; none for a single row, which sees everything."""
        if span.rows == 1:
            return None
        seen = torch.ones(span.rows, span.end, dtype=torch.bool, device=self.device)
        return seen.tril(span.start)

    def _rms_norm(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.config.rms_eps)
        return weight * (wide * scale).to(x.dtype)


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (i, i + head_dim / 2) of `(N, heads, head_dim)` by its angle."""
    cosine, sine = rotation
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of `(n, heads, head_dim)` over `(kv_heads, L, head_dim)`: `(n, heads * head_dim)`.

    Consecutive query heads share a key head. A single row is put to it as that many queries of one head, which
    needs no mask and no copy of the keys.
    """
    rows, heads, width = queries.shape
    kv_heads = keys.shape[0]
    if rows == 1:
        grouped = queries.view(1, kv_heads, heads // kv_heads, width)
        return F.scaled_dot_product_attention(grouped, keys[None], values[None]).reshape(1, heads * width)
    attended = F.scaled_dot_product_attention(
        queries.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, enable_gqa=True
    )
    return attended[0].transpose(0, 1).reshape(rows, heads * width)
