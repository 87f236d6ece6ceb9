"""Samples of one rate to another while they come, for listeners who want a rate that is not the model's.

Prompt features have a resampler of their own (`resample.py`), which equals the reference's; this one is FFmpeg's.
"""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
from av.audio.resampler import AudioResampler

FloatArray = npt.NDArray[np.float32]


class RateChange:
    """One sound; use from one thread at a time."""

    def __init__(self, source: int, target: int) -> None:
        """Hz."""
        self._source = source
        self._resampler = None if source == target else AudioResampler(format="flt", layout="mono", rate=target)
        self._samples = 0

    def push(self, samples: FloatArray) -> FloatArray:
        """(N,) at the source rate to what is certain at the target rate."""
        if self._resampler is None:
            return samples
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32)[None, :], "flt", "mono")
        frame.sample_rate = self._source
        frame.pts = self._samples
        self._samples += len(samples)
        return self._taken(frame) if len(samples) else samples

    def finish(self) -> FloatArray:
        """The rest."""
        return np.zeros(0, np.float32) if self._resampler is None or not self._samples else self._taken(None)

    def _taken(self, frame: av.AudioFrame | None) -> FloatArray:
        assert self._resampler is not None
        parts = [part.to_ndarray()[0] for part in self._resampler.resample(frame)]
        return np.concatenate(parts).astype(np.float32) if parts else np.zeros(0, np.float32)
