"""Operations of the flow by count, from its dims alone: what a chunk has to cost when nothing is computed twice.

A multiplication with its addition counts as two operations; norms, activations and softmax are not counted.
Source: docs/model.md, "Estimator".
"""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_core.flow.attention import CacheForm
from cosyvoice_core.flow.model import FlowModel

_ROWS = 2


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """per_frame: operations of one frame in all Euler steps and both rows, the encoder's share included;
    per_pair: operations more for each frame that it attends to."""

    per_frame: float
    per_pair: float

    @classmethod
    def of(cls, model: FlowModel, form: CacheForm = CacheForm.KEYS_VALUES) -> FlowCounts:
        """Of the form of caches, whose smaller one trades memory for attention."""
        config, network = model.config, model.network
        evaluations = _ROWS * config.ode_steps
        estimator = network.decoder.estimator
        weights = sum(p.numel() for name, p in estimator.named_parameters() if p.dim() > 1 and "mlp" not in name)
        lower = sum(p.numel() for p in network.encoder.encoders.parameters() if p.dim() > 1)
        upper = sum(p.numel() for p in network.encoder.up_encoders.parameters() if p.dim() > 1)
        encoder = upper + lower / config.mel_ratio
        width = config.channels if form is CacheForm.INPUTS else config.estimator_head_dim
        inner = config.estimator_heads * width
        scores = 2 * 2 * inner * estimator.attention_layers * evaluations
        return cls(2 * weights * evaluations + 2 * encoder, scores)

    def chunk(self, frames: int, before: int) -> float:
        """Of a chunk of `frames` frames behind `before` others."""
        return frames * (self.per_frame + self.per_pair * (before + frames))

    def stream(self, frames: int, chunk: int, first: int = 0) -> float:
        """Of frames first..frames, chunk by chunk."""
        starts = range(first, frames, chunk)
        return sum(self.chunk(min(chunk, frames - start), start) for start in starts)

    def recomputed(self, stops: list[int], chunk: int) -> float:
        """Of whole prefixes that end at the frames `stops`, each computed from nothing with streaming masks."""
        return sum(self.stream(stop, chunk) for stop in stops)


def official_stops(prompt_tokens: int, tokens: int, chunk: int, lookahead: int, most: int = 100) -> list[int]:
    """Tokens (prompt included, look-ahead not) of the prefixes that the original computes for a stream.

    Its hop is a chunk, doubled after every call up to `most`; the first one is filled up to the end of a chunk.
    """
    stops, offset, hop = [], 0, chunk
    need = hop + (-prompt_tokens) % chunk
    while tokens - offset >= need + lookahead:
        offset += need
        stops.append(prompt_tokens + offset)
        hop = min(2 * hop, most)
        need = hop
    return [*stops, prompt_tokens + tokens]
