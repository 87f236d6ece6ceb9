"""Transformer blocks of the estimator: attention without positions, then a feed-forward layer.

Source: docs/model.md, "Estimator".
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.flow.cache import LayerCaches


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
        """x (B, T, dim); mask True where visible. With a cache, the cache attends."""
        if cache is None:
            out = F.scaled_dot_product_attention(self.queries(x), self.keys(x), self.values(x), attn_mask=mask)
        else:
            out = cache.attention().attend(self, x)
        merged: Tensor = self.to_out[0](out.transpose(1, 2).flatten(2))
        return merged

    def queries(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, heads, T, head_dim)."""
        return self._split(self.to_q(x))

    def keys(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, heads, T, head_dim)."""
        return self._split(self.to_k(x))

    def values(self, x: Tensor) -> Tensor:
        """(B, T, dim) -> (B, heads, T, head_dim)."""
        return self._split(self.to_v(x))

    def input_queries(self, x: Tensor) -> Tensor:
        """Queries that score inputs instead of keys: (B, T, dim) -> (B, heads, T, dim).

        A key is W_k n for an input n, so the score q . W_k n is (W_k' q) . n.
        """
        return self.queries(x) @ self._by_head(self.to_k)

    def values_of_mixtures(self, mixtures: Tensor) -> Tensor:
        """Mixtures of inputs (B, heads, T, dim) to the same mixtures of values (B, heads, T, head_dim).

        A value is W_v n, so mixing the inputs first and projecting once gives the same.
        """
        return mixtures @ self._by_head(self.to_v).transpose(1, 2)

    def _split(self, projected: Tensor) -> Tensor:
        return projected.view(projected.shape[0], projected.shape[1], self.heads, -1).transpose(1, 2)

    def _by_head(self, projection: nn.Linear) -> Tensor:
        """The weight as (heads, head_dim, dim)."""
        return projection.weight.view(self.heads, -1, projection.in_features)


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
