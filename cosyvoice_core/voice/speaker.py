"""Speaker vector of a recording, by the checkpoint's own ONNX model (CAM++). Knows neither files nor resampling.

Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosyvoice_core.audio.features import speaker_fbank
from cosyvoice_core.errors import EngineError
from cosyvoice_core.inputs import FloatArray
from cosyvoice_core.voice.onnx_session import CPU, OnnxModel


class SpeakerEncoder:
    """16 kHz waveform to one vector. On the CPU by default: one small call per new voice."""

    def __init__(self, onnx_path: Path, providers: Sequence[str] = CPU, threads: int = 1) -> None:
        self._model = OnnxModel(onnx_path, (("tensor(float)", (1, None, 80)),), providers, threads)

    def embedding(self, wave16k: FloatArray) -> FloatArray:
        """(N,) at 16 kHz, N at least 400, to (192,) float32; not normalised, the flow decoder does that."""
        vector = self._model.run(speaker_fbank(wave16k)[None]).reshape(-1).astype(np.float32)
        if not np.isfinite(vector).all():
            raise EngineError("the speaker encoder produced a value that is not finite")
        return vector
