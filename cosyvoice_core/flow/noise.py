"""The fixed start noise of the flow ODE: one value per mel bin and absolute frame, the same for all requests."""

from __future__ import annotations

import torch
from torch import Tensor

from cosyvoice_core.errors import InputError

MAX_FRAMES = 15000
_SEED = 0


class StartNoise:
    """The first `MAX_FRAMES` frames of standard normal noise drawn with seed 0, (MAX_FRAMES, bins).

    Drawn from a private generator in the layout of the original, (1, bins, MAX_FRAMES), so that values agree.
    Source: docs/model.md, "Flow matching".
    """

    def __init__(self, mel_bins: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        drawn = torch.randn((1, mel_bins, MAX_FRAMES), generator=generator)
        self._frames = drawn[0].T.contiguous().to(device=device, dtype=dtype)

    def require(self, frames: int) -> None:
        """Raises InputError when an utterance of so many frames, its prompt included, is too long."""
        if frames > MAX_FRAMES:
            raise InputError(
                "input",
                f"prompt and speech need {frames} mel frames",
                f"at most {MAX_FRAMES} (300 s) in one segment",
            )

    def frames(self, start: int, count: int) -> Tensor:
        """Noise of `count` frames from absolute frame `start`, (count, bins).

        Raises InputError past the end: prompt and speech together may last 300 s.
        """
        self.require(start + count)
        return self._frames[start : start + count]
