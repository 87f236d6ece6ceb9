"""The language model as it is trained: the same tensors under the same names as `llm.pt`, with gradients.

What serves (`cosyvoice_core.lm.body`) is made for caches and ragged batches and has no gradients; a test holds the two
to the same scores. Knows merged ids, not what they mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_core.config import LMConfig
from cosyvoice_core.lm.vocabulary import SpeechVocabulary

_SPREAD = 0.02
WATCHED = (1, 2)
"""Layers whose first head is trained to look at the word that is being said."""


class RMSNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        return self.weight * (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps))


class _Attention(nn.Module):
    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self._config = config
        inner, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden, inner)
        self.k_proj = nn.Linear(config.hidden, shared)
        self.v_proj = nn.Linear(config.hidden, shared)
        self.o_proj = nn.Linear(inner, config.hidden, bias=False)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], watched: list[Tensor] | None = None) -> Tensor:
        """watched: where the attention (B, L, L) of the first head is to be kept."""
        batch, length, _ = x.shape

        def split(projected: Tensor) -> Tensor:
            return projected.view(batch, length, -1, self._config.head_dim).transpose(1, 2)

        query, key = (_rotate(split(part), rotation) for part in (self.q_proj(x), self.k_proj(x)))
        value = split(self.v_proj(x))
        # By hand: the fused product's gradient took a fifth of a step (CPU, AMD EPYC, torch 2.13.0, 2026-11-28).
        shared = (batch, self._config.kv_heads, -1, length, self._config.head_dim)
        query, key, value = query.to(value.dtype).view(shared), key.to(value.dtype).unsqueeze(2), value.unsqueeze(2)
        scores = (query @ key.transpose(3, 4)).float() * self._config.head_dim**-0.5
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        attention = scores.masked_fill(later, -torch.inf).softmax(-1)
        if watched is not None:
            watched.append(attention[:, 0, 0])
        mixed = (attention.to(value.dtype) @ value).view(batch, -1, length, self._config.head_dim)
        out: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(batch, length, -1))
        return out


class _MLP(nn.Module):
    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.up_proj = nn.Linear(config.hidden, config.intermediate, bias=False)
        self.down_proj = nn.Linear(config.intermediate, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class _Layer(nn.Module):
    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _MLP(config)
        self.input_layernorm = RMSNorm(config.hidden, config.rms_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.rms_eps)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], watched: list[Tensor] | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rotation, watched)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class _Body(nn.Module):
    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.text_rows, config.hidden)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.rms_eps)


class _Holder(nn.Module):
    """Gives a module the place in the names that it has in the file."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class SpeechNetwork(nn.Module):
    """Merged ids to scores of the next one."""

    def __init__(self, config: LMConfig) -> None:
        super().__init__()
        self._config = config
        vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
        self._body = [_Body(config)]
        self.llm = _Holder(_Holder(self._body[0]))
        self.llm_embedding = nn.Embedding(vocabulary.marker_rows, config.hidden)
        self.speech_embedding = nn.Embedding(vocabulary.head_rows, config.hidden)
        self.llm_decoder = nn.Linear(config.hidden, vocabulary.head_rows)
        self._start()

    def _start(self) -> None:
        """Small normal weights; what is added to the residual stream is smaller the more layers add to it."""
        depth = (2 * self._config.layers) ** -0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                added = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=_SPREAD * (depth if added else 1.0) * (5 if "embed" in name else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids: Tensor, watched: list[Tensor] | None = None) -> Tensor:
        """(B, L) int64, padded on the right with anything, to scores (B, L, head rows).

        watched: takes the attention (B, L, L) of the first head of every layer in WATCHED.
        """
        body = self._body[0]
        table = torch.cat([self.speech_embedding.weight, self.llm_embedding.weight, body.embed_tokens.weight])
        x = F.embedding(ids, table)
        rotation = self._rotation(ids.shape[1], ids.device)
        for number, layer in enumerate(body.layers):
            x = layer(x, rotation, watched if number in WATCHED else None)
        scores: Tensor = self.llm_decoder(body.norm(x))
        return scores

    def _rotation(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        config = self._config
        half = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
        angles = torch.outer(torch.arange(length, device=device).float(), 1.0 / config.rope_theta**half)
        return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    first, second = x.chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
