"""From mel frames of one utterance to its samples: speed, then vocoder, then the check that the result is sound."""

from __future__ import annotations

import torch
from torch import Tensor

from cosyvoice_core.errors import EngineError
from cosyvoice_core.vocoder import SpeedStream, Vocoder, VocoderStream


class WaveformSession:
    """State of one utterance between mel and samples; equals the one-shot result for any chunking."""

    def __init__(self, vocoder: Vocoder, *, seed: int, speed: float = 1.0) -> None:
        self._speed = SpeedStream(speed) if speed != 1.0 else None
        self._stream = VocoderStream(vocoder, seed)

    def push(self, mel: Tensor, *, last: bool) -> Tensor:
        """Add mel frames (bins, T); the samples (N,) float32 that became final, perhaps none.

        Raises EngineError when a sample is not finite.
        """
        if self._speed is not None:
            mel = self._speed.push(mel, last)
        samples = self._stream.push(mel, last)
        if not torch.isfinite(samples).all():
            raise EngineError("the vocoder produced a sample that is not finite")
        return samples
