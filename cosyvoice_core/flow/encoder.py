"""Token encoder: speech tokens at 25/s to conditioning frames at 50/s, by relative-position attention blocks.

Works on embedded tokens; does not know prompts, speakers or the ODE. Source: docs/model.md, "Token encoder".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.flow.cache import StackCache
from cosyvoice_core.flow.convolution import CausalConv
from cosyvoice_core.flow.masks import chunk_mask

_BLOCK_EPS = 1e-12
_NORM_EPS = 1e-5


def relative_sinusoid(first: int, last: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids of relative positions first, first-1, ..., last; (first - last + 1, dim), sines at even places."""
    positions = torch.arange(first, last - 1, -1, device=device, dtype=torch.float32)
    frequencies = torch.exp(torch.arange(0, dim, 2, device=device, dtype=torch.float32) * -(math.log(10000.0) / dim))
    angles = positions[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class RelativeAttention(nn.Module):
    """Attention whose score adds a term of the distance i - j (Transformer-XL form).

    The projected sinusoids depend on weights and distance alone, so they are kept in one table per layer that
    covers distances -reach..reach and is rebuilt only when a longer utterance comes.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)
        self.linear_pos = nn.Linear(dim, dim, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_dim))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_dim))
        self._table: Tensor | None = None

    def forward(self, x: Tensor, mask: Tensor | None, cache: StackCache | None = None) -> Tensor:
        """x (B, T, dim), mask (T, S) True where visible or None -> (B, T, dim)."""
        batch, queries, _ = x.shape
        q = self._split(self.linear_q(x))
        k = self._split(self.linear_k(x))
        v = self._split(self.linear_v(x))
        if cache is not None:
            k, v = cache.attention().extend(k, v)
        keys = k.shape[2]
        distances = self._projected(keys - 1, -(queries - 1), x)
        by_distance = (q + self.pos_bias_v[:, None]) @ distances.transpose(1, 2)
        bias = self._by_key(by_distance, keys) / math.sqrt(self.head_dim)
        if mask is not None:
            bias = bias.masked_fill(~mask, -torch.inf)
        out = F.scaled_dot_product_attention(q + self.pos_bias_u[:, None], k, v, attn_mask=bias)
        merged: Tensor = self.linear_out(out.transpose(1, 2).reshape(batch, queries, -1))
        return merged

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, self.head_dim).transpose(1, 2)

    def _projected(self, first: int, last: int, like: Tensor) -> Tensor:
        """Projected sinusoids of distances first..last (descending), (heads, first - last + 1, head_dim)."""
        if torch.is_grad_enabled():
            return self._project(first, last, like)
        reach = 0 if self._table is None else self._table.shape[1] // 2
        stale = self._table is None or self._table.device != like.device or self._table.dtype != like.dtype
        if stale or reach < max(first, -last):
            reach = max(2 * reach, first, -last, 255)
            self._table = self._project(reach, -reach, like)
        assert self._table is not None
        return self._table[:, reach - first : reach - last + 1]

    def _project(self, first: int, last: int, like: Tensor) -> Tensor:
        sinusoid = relative_sinusoid(first, last, like.shape[-1], like.device).to(like.dtype)
        projected: Tensor = self.linear_pos(sinusoid)
        return projected.view(-1, self.heads, self.head_dim).transpose(0, 1)

    @staticmethod
    def _by_key(by_distance: Tensor, keys: int) -> Tensor:
        """Pick for query i and key j the column of distance i - j: (B, h, T, S + T - 1) -> (B, h, T, S).

        Row i starts one column further left than row i - 1, so the result is a strided view.
        """
        dense = by_distance.contiguous()
        batch, heads, queries, columns = dense.shape
        return dense.as_strided(
            (batch, heads, queries, keys),
            (heads * queries * columns, queries * columns, columns - 1, 1),
            dense.storage_offset() + queries - 1,
        )


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w_1 = nn.Linear(dim, hidden)
        self.w_2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.w_2(F.silu(self.w_1(x)))
        return out


class EncoderBlock(nn.Module):
    """Pre-norm attention and feed-forward with residuals."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = RelativeAttention(dim, heads)
        self.feed_forward = FeedForward(dim, hidden)
        self.norm_mha = nn.LayerNorm(dim, eps=_BLOCK_EPS)
        self.norm_ff = nn.LayerNorm(dim, eps=_BLOCK_EPS)

    def forward(self, x: Tensor, mask: Tensor | None, cache: StackCache | None = None) -> Tensor:
        x = x + self.self_attn(self.norm_mha(x), mask, cache)
        out: Tensor = x + self.feed_forward(self.norm_ff(x))
        return out


class Embed(nn.Module):
    """Linear and norm, scaled by the square root of the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim, eps=_NORM_EPS))
        self.scale = math.sqrt(dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(x) * self.scale
        return out


class PreLookahead(nn.Module):
    """Two convolutions that mix in the next tokens; the only place that looks ahead."""

    def __init__(self, dim: int, lookahead: int) -> None:
        super().__init__()
        self.conv1 = CausalConv(dim, dim, lookahead + 1)
        self.conv2 = CausalConv(dim, dim, 3)

    def forward(self, x: Tensor, context: Tensor, cache: StackCache | None = None) -> Tensor:
        """x (B, T, dim), context (B, lookahead, dim) the frames that follow -> (B, T, dim)."""
        ahead = F.leaky_relu(self.conv1.over(torch.cat((x, context), dim=1)))
        out: Tensor = self.conv2(ahead, cache) + x
        return out


class UpsampleLayer(nn.Module):
    """Repeat every token frame and smooth with a causal convolution."""

    def __init__(self, dim: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = CausalConv(dim, dim, 2 * ratio + 1)

    def forward(self, x: Tensor, cache: StackCache | None = None) -> Tensor:
        """(B, T, dim) -> (B, ratio * T, dim)."""
        out: Tensor = self.conv(x.repeat_interleave(self.ratio, dim=1), cache)
        return out


class TokenEncoder(nn.Module):
    """Embedded tokens (B, T, dim) to frames (B, ratio * T, dim)."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, heads, hidden = config.encoder_dim, config.encoder_heads, config.encoder_ffn
        self.lookahead = config.lookahead_tokens
        self.token_chunk = config.chunk_tokens
        self.frame_chunk = config.chunk_frames
        self.ratio = config.mel_ratio
        self.embed = Embed(dim)
        self.pre_lookahead_layer = PreLookahead(dim, config.lookahead_tokens)
        self.encoders = nn.ModuleList(EncoderBlock(dim, heads, hidden) for _ in range(config.encoder_blocks))
        self.up_layer = UpsampleLayer(dim, config.mel_ratio)
        self.up_embed = Embed(dim)
        self.up_encoders = nn.ModuleList(EncoderBlock(dim, heads, hidden) for _ in range(config.upsampled_blocks))
        self.after_norm = nn.LayerNorm(dim, eps=_NORM_EPS)

    def forward(self, tokens: Tensor, context: Tensor | None, *, streaming: bool) -> Tensor:
        """Whole sequence at once. tokens (B, T, dim); context (B, lookahead, dim), or None at the end of speech."""
        ahead = self.no_context(tokens) if context is None else self.embed(context)
        return self.run(self.embed(tokens), ahead, first=0, streaming=streaming)

    def no_context(self, like: Tensor) -> Tensor:
        """What is seen past the end of speech: zeros after the embedding, not an embedded padding token."""
        return like.new_zeros(like.shape[0], self.lookahead, like.shape[2])

    def run(
        self, embedded: Tensor, ahead: Tensor, *, first: int, streaming: bool, cache: StackCache | None = None
    ) -> Tensor:
        """Run all layers on embedded tokens (B, T, dim) that start at absolute token `first`; see `forward`."""
        if cache is not None:
            cache.rewind()
        count = embedded.shape[1]
        x = self.pre_lookahead_layer(embedded, ahead, cache)
        x = self._blocks(self.encoders, x, first, count, self.token_chunk, streaming, cache)
        x = self.up_embed(self.up_layer(x, cache))
        x = self._blocks(
            self.up_encoders, x, first * self.ratio, count * self.ratio, self.frame_chunk, streaming, cache
        )
        out: Tensor = self.after_norm(x)
        return out

    @staticmethod
    def _blocks(
        blocks: nn.ModuleList,
        x: Tensor,
        first: int,
        count: int,
        chunk: int,
        streaming: bool,
        cache: StackCache | None,
    ) -> Tensor:
        mask = chunk_mask(first, count, first + count, chunk, x.device) if streaming else None
        for block in blocks:
            x = block(x, mask, cache)
        return x
