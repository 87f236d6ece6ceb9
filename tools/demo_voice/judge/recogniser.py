"""An independent listener: pocketsphinx with its own language model over an open vocabulary. Knows no synthesis."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from cosyvoice_core.audio.encode import to_pcm16
from cosyvoice_core.audio.resample import resample
from tools.demo_voice.data.corpus import FloatArray
from tools.demo_voice.lm.train import edit_distance

_RATE = 16000
_DITHER = 3e-4
"""Runs of exact zeros break the recogniser: undithered it understands half of what it does with this."""


class Recogniser:
    """Sound to words; every sentence is heard afresh."""

    def __init__(self) -> None:
        """Raises ModuleNotFoundError without the extra `demo-voice`."""
        # Imported here: only judging needs it.
        from pocketsphinx import Decoder

        self._decoder = Decoder(samprate=_RATE, loglevel="FATAL")

    def words(self, samples: FloatArray, rate: int) -> tuple[str, ...]:
        """(N,) at `rate` Hz to words in lower case."""
        wave = np.pad(resample(samples, rate, _RATE), _RATE // 5)
        wave = wave + _DITHER * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)
        # What it has learnt of one recording's level must not colour the next.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        self._decoder.process_raw(to_pcm16(wave), no_search=False, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return words_of("" if found is None else found.hypstr)


def words_of(text: str) -> tuple[str, ...]:
    """Words of a text as they are compared: lower case, hyphens as blanks, no other signs."""
    return tuple(re.findall(r"[a-z']+", text.lower().replace("-", " ")))


def word_errors(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Words inserted, left out or replaced."""
    return edit_distance(wanted, heard)
