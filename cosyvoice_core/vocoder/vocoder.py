"""The vocoder: mel spectrogram to waveform, whole utterances at once.

Ties pitch, source and generator together and loads them from a checkpoint. Knows nothing of streams (`stream.py`)
or of where mel comes from. Source: docs/model.md, "Vocoder".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cosyvoice_core.checkpoint.tensors import fold_weight_norm, load_strict
from cosyvoice_core.config import VocoderConfig
from cosyvoice_core.errors import InputError
from cosyvoice_core.vocoder.f0 import F0Predictor
from cosyvoice_core.vocoder.hift import HiFTGenerator
from cosyvoice_core.vocoder.noise import SourceNoise
from cosyvoice_core.vocoder.section import Span
from cosyvoice_core.vocoder.source import HarmonicSource


class Vocoder(nn.Module):
    """F0 predictor, harmonic source and HiFT generator; all state of an utterance lives outside."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.f0_predictor = F0Predictor(config)
        self.m_source = HarmonicSource(config)
        self.generator = HiFTGenerator(config)
        self.requires_grad_(False).eval()

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], config: VocoderConfig, source: str) -> Vocoder:
        """Build from the tensors of `hift.pt`; `source` names the file in errors.

        Keys of a checkpoint saved inside its training wrapper carry `generator.` and come with a discriminator: the
        one is cut out, the other left behind. Weight norms are folded.
        Raises CheckpointError when a tensor is missing, unexpected or of another shape than the config implies.
        """
        vocoder = cls(config)
        own = {
            key.replace("generator.", ""): value for key, value in state.items() if not key.startswith("discriminator.")
        }
        # The file keeps all parts side by side; so does this view of them, so that errors speak the file's names.
        flat = nn.Module()
        for name, part in vocoder.generator.named_children():
            flat.add_module(name, part)
        flat.add_module("f0_predictor", vocoder.f0_predictor)
        flat.add_module("m_source", vocoder.m_source)
        load_strict(flat, fold_weight_norm(own), source)
        return vocoder

    @property
    def device(self) -> torch.device:
        return self.m_source.l_linear.weight.device

    @torch.no_grad()
    def f0(self, mel: Tensor) -> Tensor:
        """Pitch of mel (B, mel_bins, T) in Hz: (B, T) float32. Raises InputError for another shape."""
        f0: Tensor = self.f0_predictor(self._checked(mel))
        return f0.float()

    @torch.no_grad()
    def decode(self, mel: Tensor, source: Tensor, keep: Span | None = None) -> Tensor:
        """Speech (B, samples) of mel (B, mel_bins, T) and source (B, 1, T * samples_per_frame).

        `keep`: the mel frames whose samples are wanted, default all. Raises InputError when shapes do not match.
        """
        batch, _, frames = self._checked(mel).shape
        expected = (batch, 1, frames * self.config.samples_per_frame)
        if source.shape != expected:
            raise InputError("source", f"shape {tuple(source.shape)}", f"{expected} for mel {tuple(mel.shape)}")
        keep = Span(0, frames) if keep is None else keep
        if not len(keep):
            return source.new_zeros(batch, 0)
        speech: Tensor = self.generator(mel, source[:, 0], keep)
        return speech

    @torch.no_grad()
    def vocode(self, mel: Tensor, noise: SourceNoise | Sequence[SourceNoise] | Tensor) -> Tensor:
        """Speech (B, T * samples_per_frame) of whole utterances mel (B, mel_bins, T), phase in float64.

        noise: one SourceNoise for all rows, one for each, or a tensor (B, T * samples_per_frame, partials) of
        standard normal values. Raises InputError when shapes do not match.
        """
        batch, _, frames = self._checked(mel).shape
        if not frames:
            return mel.new_zeros(batch, 0)
        if isinstance(noise, Tensor):
            self._check_noise(noise, batch, frames)
            mixed = self.m_source.mix(noise)
        else:
            rows = [noise] * batch if isinstance(noise, SourceNoise) else list(noise)
            if len(rows) != batch:
                raise InputError("noise", f"{len(rows)} for {batch} rows of mel", "one, or one per row")
            drawn = torch.stack([row.mixed(0, frames) for row in rows]).to(self.device)
            mixed = self.m_source.scale(drawn)
        source, _ = self.m_source(self.f0_predictor(mel), mixed)
        return self.decode(mel, source.unsqueeze(1))

    @torch.no_grad()
    def reference_vocode(self, mel: Tensor, noise: Tensor, cache_source: Tensor) -> tuple[Tensor, Tensor]:
        """The original's vocoder call: speech (B, N) and source (B, 1, N), N = T * samples_per_frame.

        mel (B, mel_bins, T); noise (B, N, partials) standard normal; cache_source (B, 1, n), n from 0 to N, takes
        the place of the first n samples of the source. Phase starts anew and is float32. For parity only.
        Raises InputError when shapes do not match.
        """
        batch, _, frames = self._checked(mel).shape
        self._check_noise(noise, batch, frames)
        source = self.m_source.reference(self.f0(mel), noise).unsqueeze(1)
        kept = cache_source.shape[-1]
        if cache_source.shape[:-1] != (batch, 1) or kept > source.shape[-1]:
            allowed = f"({batch}, 1, n) with n up to {source.shape[-1]}"
            raise InputError("cache_source", f"shape {tuple(cache_source.shape)}", allowed)
        source[:, :, :kept] = cache_source
        return self.decode(mel, source), source

    def _checked(self, mel: Tensor) -> Tensor:
        if mel.dim() != 3 or mel.shape[1] != self.config.mel_bins:
            raise InputError("mel", f"shape {tuple(mel.shape)}", f"(batch, {self.config.mel_bins}, frames)")
        return mel

    def _check_noise(self, noise: Tensor, batch: int, frames: int) -> None:
        expected = (batch, frames * self.config.samples_per_frame, self.config.partials)
        if noise.shape != expected:
            raise InputError("noise", f"shape {tuple(noise.shape)}", str(expected))
