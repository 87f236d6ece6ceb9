"""The short spectrum the generator reads of its source and writes of its speech.

Both directions are small matrix products with a fixed periodic Hann window: at 16 samples per frame that is faster
on a CPU than an FFT and as accurate. Knows nothing of mel frames. Source: docs/model.md, "Vocoder".
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.vocoder.section import Extent, Section, Span


class Spectrum(nn.Module):
    """STFT and its inverse, centred, one-sided, not normalised: frame k is centred on sample k * hop."""

    analysis: Tensor
    synthesis: Tensor
    window_power: Tensor

    def __init__(self, n_fft: int, hop: int) -> None:
        super().__init__()
        if n_fft % (2 * hop):
            raise ValueError(f"n_fft must be a multiple of twice the hop, got {n_fft} and {hop}")
        self.n_fft, self.hop = n_fft, hop
        self.bins = n_fft // 2 + 1
        time = torch.arange(n_fft, dtype=torch.float64)
        window = 0.5 - 0.5 * torch.cos(2 * math.pi * time / n_fft)
        angle = 2 * math.pi * torch.outer(torch.arange(self.bins, dtype=torch.float64), time) / n_fft
        analysis = torch.cat([angle.cos(), -angle.sin()]) * window
        # A real signal's bins count twice, for their mirror images, save the first and the last.
        mirror = torch.full((self.bins, 1), 2.0 / n_fft, dtype=torch.float64)
        mirror[0] = mirror[-1] = 1.0 / n_fft
        synthesis = torch.cat([angle.cos() * mirror, -angle.sin() * mirror]) * window
        self.register_buffer("analysis", analysis.float(), persistent=False)
        self.register_buffer("synthesis", synthesis.t().contiguous().float(), persistent=False)
        self.register_buffer("window_power", window.square().float(), persistent=False)

    def forward(self, signal: Tensor, extent: Extent) -> Section:
        """(B, N) samples, as long as `extent`, to their spectrum (B, 2 * bins, N / hop + 1).

        N and all rows' lengths are multiples of the hop and more than n_fft / 2. Real parts come first, then
        imaginary parts; both ends are padded by reflection, each row at its own end.
        """
        half, frames = self.n_fft // 2, Extent(extent.most // self.hop + 1, extent.least // self.hop + 1)
        padded = F.pad(signal, (half, half), mode="reflect")
        if extent.ends is not None:
            mirrored = extent.ends[:, None] + torch.arange(half, device=signal.device)
            padded.scatter_(1, mirrored + half, signal.gather(1, 2 * extent.ends[:, None] - 2 - mirrored))
            frames = replace(frames, ends=extent.ends // self.hop + 1)
        spectrum = torch.matmul(self.analysis, padded.unfold(-1, self.n_fft, self.hop).transpose(1, 2))
        span = Span(0, frames.most)
        return Section(frames.clear(spectrum, span), span, frames)

    def frames_for(self, samples: Span) -> Span:
        """The frames whose windows touch these samples; may reach beyond the signal."""
        half = self.n_fft // 2
        return Span((samples.start - half) // self.hop + 1, (samples.stop - 1 + half) // self.hop + 1)

    def inverse(self, spectrum: Section, samples: Span) -> Tensor:
        """A section (B, 2 * bins, ...) of a spectrum to the samples (B, len(samples)) of its signal.

        Weighted overlap-add, divided by the summed squared window of the frames there are: the section must hold
        `frames_for(samples)` as far as the signal has them. The imaginary parts of the first and last bin have no
        effect. Samples behind the end of a row mean nothing.
        """
        frames, extent = spectrum.span, spectrum.extent
        # Cropped before the division: outside `samples` the summed window may be zero.
        first = samples.start + self.n_fft // 2 - frames.start * self.hop
        signal = self._overlap(torch.matmul(self.synthesis, spectrum.values)).narrow(-1, first, len(samples))
        power = self.window_power[None, :, None] * ~extent.behind(frames).unsqueeze(1)
        power = self._overlap(power).narrow(-1, first, len(samples))
        return signal / power.clamp_min(torch.finfo(power.dtype).tiny)

    def _overlap(self, windows: Tensor) -> Tensor:
        """(B, n_fft, N) windows, each `hop` samples after the one before, summed to (B, n_fft + (N - 1) * hop)."""
        batch, _, count = windows.shape
        parts = self.n_fft // self.hop
        split = windows.reshape(batch, parts, self.hop, count)
        total = windows.new_zeros(batch, self.hop, count + parts - 1)
        for part in range(parts):
            total.narrow(-1, part, count).add_(split[:, part])
        return total.transpose(1, 2).flatten(1)
