"""Pitch of each mel frame. Knows nothing of the source that sings it. Source: docs/model.md, "Vocoder"."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.vocoder.section import Extent, Span

_CONVS = 5


class F0Predictor(nn.Module):
    """Five convolutions over time and a linear layer, in float64.

    The source sums f0 over the whole utterance, so that a rounding error in one frame shifts the phase of every
    later sample. Float32 convolutions round differently for each window length; in float64 (about one hundredth
    of the vocoder's work) that difference stays far below what is audible or measurable, however audio is cut.
    """

    reach = _CONVS
    """Frames to either side that one frame's f0 depends on."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        widths = [config.mel_bins] + [config.f0_channels] * _CONVS
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv1d(inner, outer, 3, padding=1, dtype=torch.float64), nn.ELU(inplace=True)]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(config.f0_channels, 1, dtype=torch.float64)

    def forward(self, mel: Tensor, extent: Extent | None = None) -> Tensor:
        """(B, mel_bins, T) to (B, T) float64, in Hz; frames beyond either end count as zeros.

        Rows that end before the batch do say so in `extent`; mel must be zero there, and so is their f0.
        """
        extent = extent or Extent.even(mel.shape[-1])
        frames, hidden = Span(0, extent.most), mel.double()
        for layer in self.condnet:
            hidden = layer(hidden)
            if isinstance(layer, nn.ELU):
                extent.clear(hidden, frames)
        f0: Tensor = self.classifier(hidden.transpose(1, 2)).transpose(1, 2).abs()
        return extent.clear(f0, frames).squeeze(1)
