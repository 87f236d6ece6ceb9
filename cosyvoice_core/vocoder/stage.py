"""One upsampling stage of the generator: mel branch and source branch meet, residual blocks refine.

Knows which part of its inputs a part of its output needs, so that a window's margins are computed only as far as
they matter. Knows nothing of stages before or after it. Source: docs/model.md, "Vocoder".
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.vocoder.residual import ResBlock
from cosyvoice_core.vocoder.section import Extent, Section, Span


@dataclass(frozen=True, slots=True)
class StageNeeds:
    """Positions a stage works on, each group at a rate of its own.

    At the output's rate, output: after the residual blocks; joined: before them, where the branches meet;
    strided: of the source branch before its residual block. At the spectrum's rate, spectrum: of the source's
    spectrum, reaching beyond its ends where zeros are meant. Upsampled: the part of `joined` that comes from the
    mel branch, numbered without the reflected position. At the input's rate, before: what it is upsampled from.
    """

    output: Span
    joined: Span
    strided: Span
    spectrum: Span
    upsampled: Span
    before: Span


def down_padding(rate: int) -> int:
    """Zeros before the source's spectrum when it is strided down by `rate`."""
    return rate // 2


class Stage:
    """Groups modules that the generator owns; holds no parameters of its own.

    reflect: whether the output has one position more than the upsampled input, in front, mirroring its second.
    """

    def __init__(
        self,
        up: nn.ConvTranspose1d,
        source_down: nn.Conv1d,
        source_block: ResBlock,
        blocks: list[ResBlock],
        *,
        slope: float,
        reflect: bool,
    ) -> None:
        self.up, self.source_down, self.source_block, self.blocks = up, source_down, source_block, blocks
        self.slope, self.reflect = slope, reflect
        self.rate, self.kernel = up.stride[0], up.kernel_size[0]
        if (self.kernel - self.rate) % 2:
            raise ValueError(f"upsampling by {self.rate} with kernel {self.kernel} cannot be centred")
        self.padding = (self.kernel - self.rate) // 2

    def extent(self, before: Extent) -> Extent:
        """How long the output is for an input that is as long as `before`."""
        return before.scaled(self.rate, int(self.reflect))

    def needs(self, output: Span, before: int) -> StageNeeds:
        """What to compute for `output`, of an input of `before` positions in all."""
        total = before * self.rate + self.reflect
        output = output.clipped(total)
        joined = output.grown(max(block.reach for block in self.blocks)).clipped(total)
        down = self.source_down
        strided = joined.grown(self.source_block.reach).clipped(total)
        first = strided.start * down.stride[0] - down_padding(down.stride[0])
        spectrum = Span(first, first + (len(strided) - 1) * down.stride[0] + down.kernel_size[0])
        upsampled = joined
        if self.reflect:
            upsampled = Span(max(joined.start - 1, 0), max(joined.stop - 1, 2 if joined.start == 0 else 0))
        first = -((self.kernel - 1 - self.padding - upsampled.start) // self.rate)
        last = (upsampled.stop - 1 + self.padding) // self.rate
        return StageNeeds(output, joined, strided, spectrum, upsampled, Span(first, last + 1).clipped(before))

    def run(self, x: Section, spectrum: Section, needs: StageNeeds) -> Section:
        """Upsample `x`, add the source branch, refine: the section `needs.output`."""
        extent = self.extent(x.extent)
        joined = self.source_block(self.stride_down(spectrum, needs, extent), needs.joined)
        extent.clear(joined.values.add_(self.upsample(x, needs)), needs.joined)
        refined = [block(joined, needs.output).values for block in self.blocks]
        mean = refined[0]
        for other in refined[1:]:
            mean = mean.add_(other)
        return Section(mean.div_(len(refined)), needs.output, extent)

    def upsample(self, x: Section, needs: StageNeeds) -> Tensor:
        """The mel branch at the positions `needs.joined`."""
        rising = self.up(F.leaky_relu(x.crop(needs.before), self.slope))
        first = needs.upsampled.start + self.padding - needs.before.start * self.rate
        up: Tensor = rising.narrow(-1, first, len(needs.upsampled))
        if self.reflect and needs.joined.start == 0:
            up = F.pad(up, (1, 0), mode="reflect").narrow(-1, 0, len(needs.joined))
        return up

    def stride_down(self, spectrum: Section, needs: StageNeeds, extent: Extent) -> Section:
        """The source branch, as long as `extent`, at the positions `needs.strided`, before its residual block."""
        inside = needs.spectrum.clipped(spectrum.extent.most)
        zeros = (inside.start - needs.spectrum.start, needs.spectrum.stop - inside.stop)
        values = spectrum.crop(inside)
        strided = self.source_down(F.pad(values, zeros) if any(zeros) else values)
        return Section(extent.clear(strided, needs.strided), needs.strided, extent)
