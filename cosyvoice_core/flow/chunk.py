"""Mel frames that are being computed, which go through the Euler steps together. Knows no streams and no networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from cosyvoice_core.flow.residual import Conditions


@dataclass(slots=True, eq=False)
class Chunk:
    """Frames on their way from noise to mel.

    x (T, bins) after `step` Euler steps; first: absolute frame of x; new: absolute frame from which on nobody has
    them; past: pages of what lies before `first`; kept: pages to write; tails: by step, what convolutions need before
    `first`; mask as in `batch.Part`; tails_after: of the steps done.
    """

    x: Tensor
    conditions: Conditions
    first: int
    new: int
    past: tuple[int, ...]
    kept: tuple[int, ...]
    tails: Sequence[Tensor]
    mask: Tensor | None
    tails_after: list[Tensor]
    step: int = 0

    @property
    def frames(self) -> int:
        return int(self.x.shape[0])

    @property
    def stop(self) -> int:
        return self.first + self.frames
