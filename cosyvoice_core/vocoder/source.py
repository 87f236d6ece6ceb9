"""The excitation the generator shapes into speech: harmonics of the pitch where voiced, noise elsewhere.

Two arithmetics of one signal. `forward` accumulates phase in float64, modulo one cycle, and carries it from one
stretch of frames to the next; `reference` repeats the original's float32 operations in their order, whose rounding
grows with the length of the utterance, and is kept for parity. Source: docs/model.md, "Vocoder".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.vocoder.sine import sine_


class HarmonicSource(nn.Module):
    """Sines of the fundamental and its harmonics plus noise, merged by one linear layer and a tanh."""

    numbers: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.l_linear = nn.Linear(config.partials, 1)
        self.register_buffer("numbers", torch.arange(1.0, config.partials + 1, dtype=torch.float64), persistent=False)

    def forward(self, f0: Tensor, noise: Tensor, carried: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Source of some consecutive frames.

        f0: (B, n) float64 in Hz; noise: (B, n * samples_per_frame), what the linear layer makes of the partials'
        noise (`mix` or `scale`); carried: (B, partials) float64, phase in cycles at the centre of the frame before
        the first one, None at the start of an utterance.
        Returns the source (B, n * samples_per_frame) and the phases (B, n, partials) at the frame centres.

        Phase runs linearly from one frame centre to the next and rests in the first and last half frame. The last
        half frame is therefore final only at the end of an utterance: elsewhere the frame that follows changes it.
        """
        config, hop = self.config, self.config.samples_per_frame
        per_sample = f0.unsqueeze(-1) * self.numbers / config.sample_rate
        advance = (per_sample % 1.0) * hop
        centres = advance.cumsum(1)
        if carried is not None:
            centres = centres + carried[:, None]
            before, first_slope = carried[:, None], advance[:, :1]
        else:
            before, first_slope = centres[:, :1], torch.zeros_like(advance[:, :1])
        # Interval m runs from the centre of frame m-1 to that of frame m, so that the samples lie half a frame in.
        starts = torch.cat([before, centres], 1) % 1.0
        slopes = torch.cat([first_slope, advance[:, 1:], torch.zeros_like(advance[:, :1])], 1)
        within = (torch.arange(hop, device=f0.device, dtype=f0.dtype) + 0.5) / hop
        cycles = torch.addcmul(starts.unsqueeze(-1), slopes.unsqueeze(-1), within)
        sines = sine_(cycles.frac_().float().mul_(2 * math.pi))
        merged = torch.matmul(self.l_linear.weight, sines).flatten(1)[:, hop // 2 : -(hop // 2)]

        voiced = (f0 > config.voiced_threshold_hz).float().unsqueeze(-1)
        by_frame = merged.view(*f0.shape, hop) * (voiced * config.sine_amplitude)
        by_frame.addcmul_(noise.view(*f0.shape, hop), self._noise_amplitude(voiced)).add_(self.l_linear.bias)
        return by_frame.tanh_().flatten(1), centres % 1.0

    def mix(self, noise: Tensor) -> Tensor:
        """Noise of the partials (..., partials) as it leaves the linear layer: (...)."""
        mixed: Tensor = F.linear(noise, self.l_linear.weight).squeeze(-1)
        return mixed

    def scale(self, noise: Tensor) -> Tensor:
        """One standard normal draw per sample (...), given the spread of the mixed noise of all partials: (...)."""
        scaled: Tensor = noise * torch.linalg.vector_norm(self.l_linear.weight)
        return scaled

    def reference(self, f0: Tensor, noise: Tensor) -> Tensor:
        """Source (B, N) of f0 (B, T) float32 in Hz and noise (B, N, partials), N = T * samples_per_frame."""
        config = self.config
        voiced = (f0 > config.voiced_threshold_hz).float().repeat_interleave(config.samples_per_frame, 1).unsqueeze(-1)
        waves = config.sine_amplitude * self.reference_sines(f0)
        waves = waves * voiced + self._noise_amplitude(voiced) * noise
        return torch.tanh(self.l_linear(waves)).squeeze(-1)

    def reference_sines(self, f0: Tensor) -> Tensor:
        """Sines of all partials (B, T * samples_per_frame, partials) of f0 (B, T), voiced or not."""
        config = self.config
        advance = f0.unsqueeze(-1) * self.numbers.to(f0) / config.sample_rate % 1
        phase = advance.cumsum(1) * 2 * math.pi * config.samples_per_frame
        smooth = F.interpolate(phase.transpose(1, 2), scale_factor=float(config.samples_per_frame), mode="linear")
        return smooth.transpose(1, 2).sin()

    def _noise_amplitude(self, voiced: Tensor) -> Tensor:
        return voiced * self.config.noise_sigma + (1 - voiced) * (self.config.sine_amplitude / 3)
