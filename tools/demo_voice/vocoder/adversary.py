"""Discriminators that the vocoder may be trained against: by periods of the wave, and by its spectra.

Source: Kong et al. 2020, arXiv:2010.05646 (periods, least squares, features); Jang et al. 2021, arXiv:2106.07889
(spectra). Smaller than there. Knows no vocoder.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tools.demo_voice.vocoder.loss import magnitudes

_PERIODS = (2, 3, 5, 7, 11)
_SIZES = (1024, 512, 256)
_SLOPE = 0.1


class _Judge(nn.Module):
    """Convolutions over a picture (B, 1, H, W) that grow coarser along H."""

    def __init__(self, width: int, kernel: tuple[int, int], stride: tuple[int, int], layers: int) -> None:
        super().__init__()
        widths = [1, *(width << min(layer, 3) for layer in range(layers))]
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.layers = nn.ModuleList(
            nn.Conv2d(inner, outer, kernel, stride, padding) for inner, outer in pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0))

    def forward(self, picture: Tensor) -> list[Tensor]:
        """The outputs of all layers; the last are scores."""
        outputs = []
        for layer in self.layers:
            picture = F.leaky_relu(layer(picture), _SLOPE)
            outputs.append(picture)
        return [*outputs, self.last(picture)]


class Adversary(nn.Module):
    """Tells recordings from vocoder output, layer by layer."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.by_period = nn.ModuleList(_Judge(width, (5, 1), (3, 1), 4) for _ in _PERIODS)
        self.by_spectrum = nn.ModuleList(_Judge(width, (5, 5), (2, 2), 4) for _ in _SIZES)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """Of (B, N): for each judge the outputs of its layers."""
        outputs = []
        for period, judge in zip(_PERIODS, self.by_period, strict=True):
            folded = F.pad(wave, (0, -wave.shape[1] % period)).view(len(wave), 1, -1, period)
            outputs.append(judge(folded))
        for size, judge in zip(_SIZES, self.by_spectrum, strict=True):
            outputs.append(judge(magnitudes(wave, size).clamp(min=1e-5).log()[:, None]))
        return outputs


def adversary_loss(adversary: Adversary, speech: Tensor, wanted: Tensor) -> Tensor:
    """What the adversary is trained by: recordings score 1, output scores 0."""
    total = wanted.new_zeros(())
    for real, made in zip(adversary(wanted), adversary(speech.detach()), strict=True):
        total = total + (real[-1] - 1).square().mean() + made[-1].square().mean()
    return total


def fooling_losses(adversary: Adversary, speech: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """What the vocoder is trained by besides: output scores 1, and its layers' outputs are those of recordings."""
    scores, features = wanted.new_zeros(()), wanted.new_zeros(())
    with torch.no_grad():
        reals = adversary(wanted)
    for real, made in zip(reals, adversary(speech), strict=True):
        scores = scores + (made[-1] - 1).square().mean()
        for mine, theirs in zip(made[:-1], real[:-1], strict=True):
            features = features + F.l1_loss(mine, theirs) / len(made[:-1])
    return scores, features
