"""Noise of the source as a pure function of seed and position, so that every chunking hears the same noise.

Knows nothing of harmonics or mel. Source: docs/model.md, "Vocoder" and "Differences from the original".
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.random import Generator, Philox
from torch import Tensor

from cosyvoice_core.errors import InputError

_SEED_LIMIT = 1 << 64


class SourceNoise:
    """Standard normal noise of one utterance, readable from any mel frame on without drawing what came before.

    Each mel frame has its own counter-based generator (Philox), keyed by seed and absolute frame number.

    `mixed` draws one value per sample. The source adds an independent draw to each of its partials, but only their
    sum under the weights w of one linear layer leaves it: that sum is normal with standard deviation |w|, so one
    draw scaled by |w| has the same distribution at a ninth of the price. `partials` draws them one by one, for the
    reference arithmetic.
    """

    def __init__(self, seed: int, samples_per_frame: int = 480) -> None:
        """Raise InputError for a seed outside 0 ... 2**64 - 1."""
        if not 0 <= seed < _SEED_LIMIT:
            raise InputError("seed", f"{seed} is out of range", f"0 to {_SEED_LIMIT - 1}")
        self.seed = seed
        self.samples_per_frame = samples_per_frame

    def mixed(self, start: int, count: int) -> Tensor:
        """One draw per sample of the `count` frames from frame `start` on: (count * samples_per_frame,) float32."""
        return self._draw(start, count, 1).flatten()

    def partials(self, start: int, count: int, partials: int = 9) -> Tensor:
        """A draw per sample and partial: (count * samples_per_frame, partials) float32."""
        return self._draw(start, count, partials).view(-1, partials)

    def _draw(self, start: int, count: int, width: int) -> Tensor:
        values = np.empty((count, self.samples_per_frame * width), np.float32)
        bits = Philox(key=self.seed << 64 | start)
        generator, state = Generator(bits), bits.state
        for row, frame in zip(values, range(start, start + count), strict=True):
            # Another key in the place of a new generator, which would take longer than its numbers.
            state["state"]["key"][0] = frame
            bits.state = state
            generator.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(values)
