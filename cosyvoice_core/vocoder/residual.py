"""Dilated residual block with Snake activations. Knows nothing of rates or stages. Source: docs/model.md, "Vocoder"."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cosyvoice_core.vocoder.section import CentredConv, Section, Span
from cosyvoice_core.vocoder.sine import sine_


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha with one alpha per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) to (B, C, T)."""
        alpha = self.alpha.unsqueeze(-1)
        # In place but for the first product and the sum: every pass over memory counts.
        wave = sine_(x * alpha)
        return torch.addcmul(x, wave.mul_(wave), (alpha + 1e-9).reciprocal_())


class ResBlock(nn.Module):
    """For each dilation d: x + conv(snake(dilated conv(snake(x))))."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        # The plain list gives the parts their types; the module lists give the parameters their checkpoint names.
        self._steps = [
            (
                Snake(channels),
                CentredConv(channels, channels, kernel, d),
                Snake(channels),
                CentredConv(channels, channels, kernel),
            )
            for d in dilations
        ]
        self.activations1, self.convs1, self.activations2, self.convs2 = map(
            nn.ModuleList, zip(*self._steps, strict=True)
        )

    @property
    def reach(self) -> int:
        """Positions to either side that one output position depends on."""
        return sum(dilated.reach + plain.reach for _, dilated, _, plain in self._steps)

    def forward(self, x: Section, need: Span) -> Section:
        """The block's output at the positions `need`; x must hold them and `reach` more on both sides."""
        reach, extent = self.reach, x.extent
        span = need.grown(reach).clipped(extent.most)
        x = Section(x.crop(span), span, extent)
        for snake1, dilated, snake2, plain in self._steps:
            reach -= dilated.reach + plain.reach
            inner = dilated.at(Section(snake1(x.values), x.span, extent), need.grown(reach + plain.reach))
            inner = plain.at(Section(snake2(inner.values), inner.span, extent), need.grown(reach))
            x = Section(inner.values.add_(x.crop(inner.span)), inner.span, extent)
        return x
