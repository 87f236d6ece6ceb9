"""A recording whose words are to be spoken in another voice, cut where it is quiet.

The speech tokenizer takes 30 s at a time. Knows neither files nor models.
"""

from __future__ import annotations

import numpy as np

from cosyvoice_core.audio.features import TOKENIZER_RATE
from cosyvoice_core.inputs import FloatArray
from cosyvoice_core.voice.speech_tokenizer import MAX_SECONDS

_TOKEN = TOKENIZER_RATE // 25
"""Samples of a speech token. Pieces are whole tokens, so that none is shorter than its sound."""
_LOOKED_AT = 10 * 25
"""Tokens of the end of a longest piece among which it may be cut."""
_QUIET = 5
"""Tokens (0.2 s) whose loudness counts together; the cut is in their midst."""


def source_pieces(wave16k: FloatArray) -> list[FloatArray]:
    """(N,) at 16 kHz to pieces of at most 30 s that make it up, each but the last cut at the quietest of its last 10 s.

    No piece is less than a second.
    """
    pieces = []
    longest = MAX_SECONDS * 25
    while len(wave16k) > longest * _TOKEN:
        most = min(longest, len(wave16k) // _TOKEN - 25)
        cut = _quietest(wave16k, most - _LOOKED_AT, most) * _TOKEN
        pieces.append(wave16k[:cut])
        wave16k = wave16k[cut:]
    return [*pieces, wave16k]


def _quietest(wave16k: FloatArray, first: int, last: int) -> int:
    """The token between `first` and `last` around which there is the least sound."""
    tokens = wave16k[first * _TOKEN : last * _TOKEN].reshape(-1, _TOKEN)
    energy = np.square(tokens, dtype=np.float64).sum(axis=1)
    around = np.convolve(energy, np.ones(_QUIET), mode="valid")
    return first + int(around.argmin()) + (_QUIET + 1) // 2
