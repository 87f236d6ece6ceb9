"""The network of the speech tokenizer: log-mel to phone, onset and pitch level of each token. Knows no codes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.demo_voice.codec.codes import LEVELS

MEL_BINS = 128


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """width: channels; blocks: residual blocks at the rate of tokens, each seeing two tokens more to either side."""

    width: int = 224
    blocks: int = 5

    def __post_init__(self) -> None:
        if self.width < 1 or self.blocks < 1:
            raise ValueError("width and blocks must be at least 1")


class Residual(nn.Module):
    """x + conv1(relu(conv5(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(width, width, 5, padding=2)
        self.narrow = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, T), mask (B, 1, T)."""
        hidden = F.relu(self.wide(F.relu(x) * mask))
        out: Tensor = x + self.narrow(hidden) * mask
        return out


class TokenizerNetwork(nn.Module):
    """Halves the frame rate twice; the mean over time tells how high the voice is as a whole."""

    def __init__(self, config: TokenizerConfig, phones: int) -> None:
        super().__init__()
        width = config.width
        self.phones = phones
        self.first = nn.Conv1d(MEL_BINS, width, 3, stride=2, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(config.blocks))
        self.mean = nn.Linear(width, width)
        self.head = nn.Linear(width, phones + 1 + LEVELS)

    def forward(self, log_mel: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log_mel (B, 128, 4 T), zero behind the ends; tokens (B,) lengths.

        Returns logits of phones (B, T, phones), of onsets (B, T) and of pitch levels (B, T, 3).
        """
        steps = log_mel.shape[2] // 2
        positions = torch.arange(steps, device=log_mel.device)
        mask = (positions < 2 * tokens[:, None]).float()[:, None]
        x = F.relu(self.first(log_mel)) * mask
        mask = mask[:, :, ::2]
        x = self.second(x) * mask
        for index, block in enumerate(self.blocks):
            x = block(x, mask)
            if index == 0:
                mean = x.sum(2) / tokens[:, None]
                x = x + F.relu(self.mean(mean))[:, :, None] * mask
        logits: Tensor = self.head(F.relu(x).transpose(1, 2))
        return logits[..., : self.phones], logits[..., self.phones], logits[..., self.phones + 1 :]
