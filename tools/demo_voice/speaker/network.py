"""The speaker encoder: filter bank of a recording to one vector. Knows neither voices nor files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.demo_voice.codec.graph import FLOAT, Graph

BINS, VECTOR = 80, 192


@dataclass(frozen=True, slots=True)
class SpeakerConfig:
    """width: channels of the convolutions."""

    width: int = 160

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be at least 1, got {self.width}")


class SpeakerNetwork(nn.Module):
    """Convolutions, then mean and spread over time. The input's own spread tells of the room that the mean, which is
    taken off it, does not."""

    def __init__(self, config: SpeakerConfig) -> None:
        super().__init__()
        self.first = nn.Conv1d(BINS, config.width, 5, padding=2)
        self.second = nn.Conv1d(config.width, config.width, 3, dilation=2, padding=2)
        self.vector = nn.Linear(2 * config.width, VECTOR)

    def forward(self, fbank: Tensor) -> Tensor:
        """(B, T, 80) with the mean taken off, to (B, 192)."""
        x = F.relu(self.first(fbank.transpose(1, 2)))
        x = F.relu(self.second(x))
        mean = x.mean(2)
        spread = ((x - mean[:, :, None]).square().mean(2) + 1e-5).sqrt()
        out: Tensor = self.vector(torch.cat([mean, spread], 1))
        return out


def write_speaker_encoder(network: SpeakerNetwork, path: Path) -> None:
    """`input` (1, T, 80) to `output` (1, 192), both float32, as the official file has them."""
    graph = Graph()
    x = graph.node("Transpose", graph.input("input", FLOAT, (1, "T", BINS)), perm=[0, 2, 1])
    for module in (network.first, network.second):
        x = graph.node("Relu", graph.conv(module, x))
    mean = graph.node("ReduceMean", x, axes=[2], keepdims=1)
    off = graph.node("Sub", x, mean)
    power = graph.node("ReduceMean", graph.node("Mul", off, off), axes=[2], keepdims=1)
    spread = graph.node("Sqrt", graph.node("Add", power, graph.weight(torch.tensor(1e-5))))
    pooled = graph.node("Flatten", graph.node("Concat", mean, spread, axis=1), axis=1)
    graph.save(path, graph.linear(network.vector, pooled), "output", FLOAT, (1, VECTOR))
