"""The S3 speech tokenizer, version 2, in torch: batches of padded log-mels to speech tokens.

An alternative to the ONNX file where many recordings are to be encoded at once, and a check on it. Knows no audio.
Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.checkpoint.tensors import load_strict, read_state
from cosyvoice_core.errors import CheckpointError

_SHRINK = 0.9990000128746033
"""Keeps tanh short of 1, so that no value rounds past the outer levels."""
_LEVELS = 3
_FAR = -1e10
_ROPE_BASE = 10000.0
_BLOCKS = "encoder.blocks."


@dataclass(frozen=True, slots=True)
class S3Config:
    """Dimensions; defaults are the official ones."""

    mel_bins: int = 128
    width: int = 1280
    blocks: int = 6
    hidden: int = 5120
    memory_taps: int = 31
    code_digits: int = 8
    head_dim: int = 64

    def __post_init__(self) -> None:
        if self.width % self.head_dim:
            raise ValueError(f"width {self.width} is not a multiple of head_dim {self.head_dim}")
        if self.memory_taps % 2 == 0:
            raise ValueError(f"memory_taps must be odd, got {self.memory_taps}")

    @property
    def heads(self) -> int:
        return self.width // self.head_dim

    @classmethod
    def of_state(cls, state: dict[str, Tensor], source: str) -> S3Config:
        """Dimensions that the tensors of a state dict have. Raises CheckpointError naming one it cannot find."""

        def sizes(key: str, dims: int) -> tuple[int, ...]:
            if key not in state or state[key].dim() != dims:
                raise CheckpointError(f"{source}: no tensor {key} of {dims} dimensions; not an S3 tokenizer")
            return tuple(state[key].shape)

        width, mel_bins, _ = sizes("encoder.conv1.weight", 3)
        numbers = {key.removeprefix(_BLOCKS).split(".")[0] for key in state if key.startswith(_BLOCKS)}
        try:
            return cls(
                mel_bins=mel_bins,
                width=width,
                blocks=len(numbers),
                hidden=sizes(f"{_BLOCKS}0.mlp.0.weight", 2)[0],
                memory_taps=sizes(f"{_BLOCKS}0.attn.fsmn_block.weight", 3)[2],
                code_digits=sizes("quantizer._codebook.project_down.weight", 2)[0],
            )
        except ValueError as error:
            raise CheckpointError(f"{source}: {error}") from error


def token_lengths(frames: Tensor) -> Tensor:
    """Tokens of log-mels of `frames` frames: halved twice, rounding up."""
    return _halved(_halved(frames))


def fsq_ids(pre_tanh: Tensor) -> Tensor:
    """Finite scalar quantisation: (..., digits) to (...) int32, digit k of {0, 1, 2} weighing 3^k."""
    digits = (torch.tanh(pre_tanh) * _SHRINK).round().long() + 1
    weights = _LEVELS ** torch.arange(pre_tanh.shape[-1], device=pre_tanh.device)
    return (digits * weights).sum(-1).int()


def _halved(lengths: Tensor) -> Tensor:
    return torch.div(lengths - 1, 2, rounding_mode="floor") + 1


def _mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) float: 1 within each item's length."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None]).float()


class _Attention(nn.Module):
    """Rotary self-attention over all valid positions, plus a depthwise convolution of the values (FSMN)."""

    def __init__(self, config: S3Config) -> None:
        super().__init__()
        width = config.width
        self._heads, self._head_dim = config.heads, config.head_dim
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        taps = config.memory_taps
        self.fsmn_block = nn.Conv1d(width, width, taps, padding=taps // 2, groups=width, bias=False)

    def forward(self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """x (B, L, C), mask (B, L) to (B, L, C)."""
        value = self.value(x)
        valid = mask[:, :, None]
        memory = value * valid
        memory = (self.fsmn_block(memory.transpose(1, 2)).transpose(1, 2) + memory) * valid
        query = _rotate(self._split(self.query(x)), rotation)
        key = _rotate(self._split(self.key(x)), rotation)
        padding = ((1.0 - mask) * _FAR)[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, self._split(value), attn_mask=padding)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        out += memory
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, heads, L, C / heads)."""
        return x.view(x.shape[0], x.shape[1], self._heads, self._head_dim).transpose(1, 2)


class _Block(nn.Module):
    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self.attn = _Attention(config)
        self.attn_ln = nn.LayerNorm(config.width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.width)
        )
        self.mlp_ln = nn.LayerNorm(config.width, eps=1e-5)

    def forward(self, x: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.attn_ln(x), mask, rotation)
        out: Tensor = x + self.mlp(self.mlp_ln(x))
        return out


class _Encoder(nn.Module):
    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(config.mel_bins, config.width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(config.width, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.blocks))
        self._head_dim = config.head_dim

    def forward(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """Padding is masked before each convolution, so that no item hears another's length."""
        x = log_mel * _mask(frames, log_mel.shape[2])[:, None, :]
        x = F.gelu(self.conv1(x))
        x = x * _mask(_halved(frames), x.shape[2])[:, None, :]
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        mask = _mask(token_lengths(frames), x.shape[1])
        rotation = _rotation(x.shape[1], self._head_dim, x.device)
        for block in self.blocks:
            x = block(x, mask, rotation)
        return x


class _Codebook(nn.Module):
    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self.project_down = nn.Linear(config.width, config.code_digits)


class _Quantizer(nn.Module):
    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self._codebook = _Codebook(config)

    def forward(self, hidden: Tensor) -> Tensor:
        projected: Tensor = self._codebook.project_down(hidden)
        return projected


class S3Tokenizer(nn.Module):
    """Log-mels to speech tokens; module names are those of the published state dict."""

    def __init__(self, config: S3Config) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        self.quantizer = _Quantizer(config)

    @classmethod
    def from_file(cls, path: Path) -> S3Tokenizer:
        """Module with the weights and the dimensions of a state dict file, ready for inference.

        Raises CheckpointError for a file that is no S3 tokenizer, and names tensors that are missing, extra or of
        another shape.
        """
        state = read_state(path)
        tokenizer = cls(S3Config.of_state(state, str(path)))
        load_strict(tokenizer, state, str(path))
        return tokenizer.eval().requires_grad_(False)

    def hidden(self, log_mel: Tensor, frames: Tensor) -> Tensor:
        """(B, 128, T) padded, (B,) lengths in frames, to (B, L, C); rows past an item's tokens mean nothing."""
        out: Tensor = self.encoder(log_mel, frames)
        return out

    def pre_tanh(self, hidden: Tensor) -> Tensor:
        """(B, L, C) to (B, L, 8): what the quantiser rounds, before its tanh."""
        out: Tensor = self.quantizer(hidden)
        return out

    @torch.inference_mode()
    def forward(self, log_mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 128, T) padded, (B,) lengths in frames, to ids (B, L) int32 and their lengths (B,)."""
        return fsq_ids(self.pre_tanh(self.hidden(log_mel, frames))), token_lengths(frames)


def _rotation(length: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine (L, head_dim): each frequency turns dimension i together with i + head_dim / 2."""
    half = torch.arange(head_dim // 2, device=device, dtype=torch.float32)
    angles = torch.arange(length, device=device)[:, None] * _ROPE_BASE ** (-2.0 * half / head_dim)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat([-second, first], dim=-1) * sine
