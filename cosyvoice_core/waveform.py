"""From mel frames of one utterance to its samples: speed first, then the vocoder. Knows nothing of tokens."""

from __future__ import annotations

from torch import Tensor

from cosyvoice_core.vocoder import (
    PreparedWindow,
    SpeedStream,
    StreamWindow,
    VocodedWindow,
    Vocoder,
    VocoderStream,
    WindowShape,
)


class WaveformSession:
    """State of one utterance between mel and samples; equals the one-shot result for any chunking.

    A scheduler drives many sessions by `feed`, `shape`, `window` and `emit`, as `VocoderStream` says; `push` does it
    for one.
    """

    def __init__(
        self,
        vocoder: Vocoder,
        *,
        seed: int,
        speed: float = 1.0,
        window: StreamWindow | None = None,
        skip_samples: int = 0,
    ) -> None:
        """`skip_samples`: samples at the beginning that somebody has already. Raises InputError out of range."""
        self._speed = SpeedStream(speed) if speed != 1.0 else None
        self._stream = VocoderStream(vocoder, seed, window, skip_samples=skip_samples)

    def push(self, mel: Tensor, *, last: bool) -> Tensor:
        """Add mel frames (bins, T); the samples (N,) float32, on the vocoder's device, that became final.

        Raises EngineError when a sample is not finite.
        """
        return self._stream.push(self._stretched(mel, last=last), last)

    def feed(self, mel: Tensor, *, last: bool) -> None:
        """Add mel frames (bins, T) without computing what they complete. Raises InputError for another shape."""
        self._stream.feed(self._stretched(mel, last=last), last)

    @property
    def shape(self) -> WindowShape | None:
        """That of the next window, None until more mel comes."""
        return self._stream.shape

    def window(self) -> PreparedWindow | None:
        """The next window to compute, None until more mel comes."""
        return self._stream.window()

    def emit(self, result: VocodedWindow) -> Tensor:
        """Samples (N,) float32, on the host, of the window computed. Raises EngineError when one is not finite."""
        return self._stream.emit(result)

    def _stretched(self, mel: Tensor, *, last: bool) -> Tensor:
        return mel if self._speed is None else self._speed.push(mel, last)
