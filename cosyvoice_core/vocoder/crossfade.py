"""The original's cross-fade between the chunks of a stream, needed only where its sessions are repeated.

Its two half windows sum to 1.08, not 1: every seam is 0.67 dB too loud. Our own streams need no fade. Source:
docs/model.md, "Differences from the original".
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cosyvoice_core.errors import InputError

REFERENCE_OVERLAP = 3840
"""Samples (160 ms at 24 kHz) over which the original fades."""


def crossfade(new: Tensor, old: Tensor, overlap: int = REFERENCE_OVERLAP) -> Tensor:
    """Fade from the last `overlap` samples of `old` (B, M) into the first ones of `new` (B, N): (B, N).

    Sums are taken in float64 and stored as `new` is. Raises InputError when either is shorter than the overlap.
    """
    for name, audio in (("new", new), ("old", old)):
        if audio.dim() != 2 or audio.shape[1] < overlap:
            raise InputError(name, f"shape {tuple(audio.shape)}", f"(batch, at least {overlap} samples)")
    window = torch.from_numpy(np.hamming(2 * overlap)).to(new.device)
    faded = new.clone()
    rising = new[:, :overlap].double() * window[:overlap]
    faded[:, :overlap] = rising + old[:, -overlap:].double() * window[overlap:]
    return faded
