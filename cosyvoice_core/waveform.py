"""From mel frames of one utterance to its samples: speed first, then the vocoder. Knows nothing of tokens."""

from __future__ import annotations

from torch import Tensor

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
        return self._stream.push(mel, last)
