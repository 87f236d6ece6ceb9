"""Speech tokens of a recording, by the checkpoint's own ONNX model. Knows neither files nor resampling.

Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cosyvoice_core.audio.features import TOKENIZER_RATE, whisper_log_mel
from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.inputs import FloatArray, IntArray
from cosyvoice_core.voice.onnx_session import CUDA_OR_CPU, OnnxModel

MAX_SECONDS = 30
"""Longest sound the tokenizer was made for."""


class SpeechTokenizer:
    """16 kHz waveform to 25 tokens per second."""

    def __init__(self, onnx_path: Path, providers: Sequence[str] = CUDA_OR_CPU, threads: int = 1) -> None:
        inputs = (("tensor(float)", (1, 128, None)), ("tensor(int32)", (1,)))
        self._model = OnnxModel(onnx_path, inputs, providers, threads)

    @property
    def providers(self) -> tuple[str, ...]:
        return self._model.providers

    def tokens(self, wave16k: FloatArray, field: str = "prompt_audio") -> IntArray:
        """(N,) at 16 kHz to (P,) int32, a token per four frames of 10 ms; N at least 201.

        Raises InputError naming `field` beyond 30 s.
        """
        if len(wave16k) > MAX_SECONDS * TOKENIZER_RATE:
            raise InputError(field, f"is longer than {MAX_SECONDS} s", f"at most {MAX_SECONDS} s")
        log_mel = whisper_log_mel(wave16k)
        ids = self._model.run(log_mel[None], np.array([log_mel.shape[1]], np.int32)).reshape(-1)
        if not np.issubdtype(ids.dtype, np.integer) or (len(ids) and int(ids.min()) < 0):
            raise EngineError("the speech tokenizer answered with something other than ids")
        return ids.astype(np.int32)
