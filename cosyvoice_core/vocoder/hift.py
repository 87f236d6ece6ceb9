"""Network that shapes a source into speech under the direction of a mel spectrogram (HiFT generator).

Three stages of upsampling, each joined by the source's spectrum at its own rate, end in the spectrum of the speech.
Not causal, but of finite reach: any part of the output can be had from a section of the input. Knows nothing of
streams or of how a source is made. Source: docs/model.md, "Vocoder".
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.vocoder.residual import ResBlock
from cosyvoice_core.vocoder.section import CentredConv, Extent, Section, Span
from cosyvoice_core.vocoder.spectrum import Spectrum
from cosyvoice_core.vocoder.stage import Stage, StageNeeds

_EDGE_KERNEL = 7
_FINAL_SLOPE = 0.01
_MAX_MAGNITUDE = 100.0


class HiFTGenerator(nn.Module):
    """Mel (B, mel_bins, T) and source (B, T * samples_per_frame) to speech of the source's length."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.spectrum = Spectrum(config.istft_n_fft, config.istft_hop)
        bins = 2 * self.spectrum.bins
        widths = [config.base_channels >> stage for stage in range(len(config.upsample_rates) + 1)]
        self.conv_pre = CentredConv(config.mel_bins, widths[0], _EDGE_KERNEL)
        self.stages: list[Stage] = []
        rates, last = config.upsample_rates, len(config.upsample_rates) - 1
        for index, (inner, outer) in enumerate(pairwise(widths)):
            down = math.prod(rates[index + 1 :])
            self.stages.append(
                Stage(
                    nn.ConvTranspose1d(inner, outer, config.upsample_kernels[index], rates[index]),
                    nn.Conv1d(bins, outer, 1 if down == 1 else 2 * down, down),
                    ResBlock(outer, config.source_resblock_kernels[index], config.source_resblock_dilations[index]),
                    [
                        ResBlock(outer, kernel, dilations)
                        for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
                    ],
                    slope=config.lrelu_slope,
                    reflect=index == last,
                )
            )
        self.conv_post = CentredConv(widths[-1], bins, _EDGE_KERNEL)
        # Under these names the checkpoint knows the parts; `stages` keeps their types and what belongs together.
        self.ups = nn.ModuleList(stage.up for stage in self.stages)
        self.source_downs = nn.ModuleList(stage.source_down for stage in self.stages)
        self.source_resblocks = nn.ModuleList(stage.source_block for stage in self.stages)
        self.resblocks = nn.ModuleList(block for stage in self.stages for block in stage.blocks)

    def forward(self, mel: Tensor, source: Tensor, keep: Span, extent: Extent | None = None) -> Tensor:
        """Speech of the mel frames `keep`: (B, len(keep) * samples_per_frame), within the audio limit.

        The input is taken for a whole utterance: beyond it there is silence. A caller who gives a part of one keeps
        frames at least `reach` away from an end that is not the utterance's own. Rows that end before the batch does
        say so in `extent`, in frames; mel and source must be zero there, and so is their speech.
        """
        extent = extent or Extent.even(mel.shape[-1])
        hop, limit = self.config.samples_per_frame, self.config.audio_limit
        samples = Span(keep.start * hop, keep.stop * hop)
        spectrum = self.spectrum(source, extent.scaled(hop))
        frames = self.spectrum.frames_for(samples).clipped(spectrum.extent.most)
        magnitude, phase = self.shape(Section(mel, Span(0, extent.most), extent), spectrum, frames).values.chunk(2, 1)
        magnitude, phase = magnitude.exp().clamp_(max=_MAX_MAGNITUDE), phase.sin()
        cartesian = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], 1)
        shaped = Section(spectrum.extent.clear(cartesian, frames), frames, spectrum.extent)
        speech = self.spectrum.inverse(shaped, samples).clamp_(-limit, limit)
        extent.scaled(hop).clear(speech.unsqueeze(1), samples)
        return speech

    def shape(self, mel: Section, spectrum: Section, frames: Span) -> Section:
        """The raw output (B, 2 * bins, ...), log magnitudes and phases, at the spectrum frames `frames`.

        mel (B, mel_bins, T) and spectrum (B, 2 * bins, 120 T + 1, as the rates have it) hold a whole signal.
        """
        need, needs = self.plan(mel.extent.most, frames)
        x = self.conv_pre.at(mel, need)
        for stage, stage_needs in zip(self.stages, needs, strict=True):
            x = stage.run(x, spectrum, stage_needs)
        return self.conv_post.at(Section(F.leaky_relu(x.values, _FINAL_SLOPE), x.span, x.extent), frames)

    def plan(self, length: int, frames: Span) -> tuple[Span, list[StageNeeds]]:
        """What to compute for the spectrum frames `frames` of a signal of `length` mel frames.

        Returns the mel frames needed of the first convolution and the needs of each stage.
        """
        totals = [length]
        for stage in self.stages:
            totals.append(stage.extent(Extent.even(totals[-1])).most)
        need, needs = frames.grown(self.conv_post.reach), []
        for stage, before in zip(reversed(self.stages), reversed(totals[:-1]), strict=True):
            needs.append(stage.needs(need, before))
            need = needs[-1].before
        return need, needs[::-1]

    def reach(self) -> tuple[int, int]:
        """Mel frames and source samples to either side that the speech of one mel frame depends on.

        Follows from kernels and rates alone: read off the plan of one frame far from both ends.
        """
        hop, middle = self.config.samples_per_frame, 100
        samples = Span(middle * hop, (middle + 1) * hop)
        need, needs = self.plan(2 * middle, self.spectrum.frames_for(samples))
        mel = need.grown(self.conv_pre.reach)
        heard = [stage.spectrum for stage in needs]
        first = min(span.start for span in heard) * self.spectrum.hop - self.spectrum.n_fft // 2
        last = (max(span.stop for span in heard) - 1) * self.spectrum.hop + self.spectrum.n_fft // 2
        return (
            max(middle - mel.start, mel.stop - middle - 1),
            max(samples.start - first, last - samples.stop),
        )
