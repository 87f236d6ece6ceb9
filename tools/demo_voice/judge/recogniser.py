"""An independent listener: Moonshine's small English recogniser over an open vocabulary. Knows no synthesis.

Source: Jeffries et al. 2024, arXiv:2410.15608; the model comes in the package. It is trained on people's speech alone
and has never heard this project's or its teacher's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cosyvoice_core.audio.resample import resample
from tools.demo_voice.data.corpus import FloatArray
from tools.demo_voice.data.texts import SentenceReader
from tools.demo_voice.lm.train import edit_distance

_RATE = 16000
_DITHER = 3e-4
"""Runs of exact zeros are no recording, and recognisers err on them."""
_WHOLE = {"vad_threshold": "0.0"}
"""Listens to all of it: what it takes for silence it would leave out."""


class Recogniser:
    """Sound to words; every sentence is heard afresh."""

    def __init__(self) -> None:
        """Raises ModuleNotFoundError without the extra `demo-voice`."""
        # Imported here: only judging needs it.
        from moonshine_voice import ModelArch, Transcriber, get_model_path

        self._transcriber = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY, options=_WHOLE)
        self._reader = SentenceReader()

    def words(self, samples: FloatArray, rate: int) -> tuple[str, ...]:
        """(N,) at `rate` Hz to words in lower case, numbers in letters."""
        wave = np.pad(resample(samples, rate, _RATE), _RATE // 5)
        wave = wave + _DITHER * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
        heard = self._transcriber.transcribe_without_streaming(wave.tolist(), _RATE)
        text = " ".join(line.text for line in heard.lines).strip()
        return words_of(self._reader.read(text)) if text else ()


def words_of(text: str) -> tuple[str, ...]:
    """Words of a text as they are compared: lower case, hyphens as blanks, no other signs."""
    return tuple(re.findall(r"[a-z']+", text.lower().replace("-", " ")))


def word_errors(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Words inserted, left out or replaced."""
    return edit_distance(wanted, heard)
