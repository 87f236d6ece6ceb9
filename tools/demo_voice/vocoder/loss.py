"""Distances between sounds: short spectra at several resolutions, and mel. Knows no networks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.audio.features import mel_of

RESOLUTIONS = (1920, 1024, 512, 240)
"""Samples of the windows at 24 kHz; hops are a quarter of them."""
_FLOOR = 1e-5


def spectra_distance(speech: Tensor, wanted: Tensor) -> Tensor:
    """Of (B, N) each: relative distance of magnitudes plus distance of their logarithms, over all resolutions."""
    total: Tensor = speech.new_zeros(())
    for size in RESOLUTIONS:
        mine, theirs = magnitudes(speech, size), magnitudes(wanted, size)
        apart, whole = (torch.linalg.vector_norm(each) for each in (mine - theirs, theirs))
        relative = apart / whole.clamp(min=1e-3)
        total = total + relative + F.l1_loss(mine.clamp(min=_FLOOR).log(), theirs.clamp(min=_FLOOR).log())
    return total / len(RESOLUTIONS)


def magnitudes(wave: Tensor, size: int) -> Tensor:
    """(B, N) to (B, size // 2 + 1, frames), scaled to be independent of the size."""
    window = torch.hann_window(size, device=wave.device)
    spectrum = torch.stft(wave.float(), size, size // 4, window=window, return_complex=True)
    scaled: Tensor = (spectrum.real.square() + spectrum.imag.square() + 1e-10).sqrt() / size**0.5
    return scaled


def mel_distance(speech: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance of log mels of (B, N) at 24 kHz."""
    return F.l1_loss(mel_of(speech.float()), mel_of(wanted))


def pitch_distance(found: Tensor, wanted: Tensor) -> Tensor:
    """Of pitches (B, T) in Hz: absolute plus squared, in units of 100 Hz."""
    difference = (found - wanted) / 100.0
    return difference.abs().mean() + difference.square().mean()
