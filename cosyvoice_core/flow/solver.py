"""Ten Euler steps from noise to mel, with guidance away from the unconditional velocity.

Knows the time grid and guidance, not where conditions come from. Source: docs/model.md, "Flow matching".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cosyvoice_core.flow.cache import StackCache
from cosyvoice_core.flow.estimator import Estimator


@dataclass(frozen=True, slots=True)
class TimeGrid:
    """Times and step widths of the Euler solver, float32, as the original accumulates them."""

    times: tuple[float, ...]
    widths: tuple[float, ...]

    @classmethod
    def cosine(cls, steps: int) -> TimeGrid:
        """tau_k = 1 - cos(k pi / (2 steps)); small steps first."""
        grid = 1 - torch.cos(torch.linspace(0, 1, steps + 1) * 0.5 * torch.pi)
        t, width = grid[0], grid[1] - grid[0]
        times, widths = [], []
        for k in range(1, steps + 1):
            times.append(t.item())
            widths.append(width.item())
            t = t + width
            if k < steps:
                width = grid[k + 1] - t
        return cls(tuple(times), tuple(widths))


class Solver:
    """Integrates the estimator's velocity over a fixed time grid.

    The time projections of all steps are constants of the weights and the grid, computed once at construction.
    """

    def __init__(self, estimator: Estimator, steps: int, cfg_rate: float) -> None:
        self.estimator = estimator
        self.grid = TimeGrid.cosine(steps)
        self.cfg_rate = cfg_rate
        parameter = next(estimator.parameters())
        by_step = [estimator.project_time(torch.full((1,), t, device=parameter.device)) for t in self.grid.times]
        # By residual block: (steps, channels).
        self._projections = [torch.cat(block) for block in zip(*by_step, strict=True)]

    @property
    def steps(self) -> int:
        return len(self.grid.times)

    def projections(self, steps: Sequence[int], rows: int = 1) -> list[Tensor]:
        """Time projections for streams at the given steps, `rows` rows each: (rows * streams, channels) by block."""
        index = torch.tensor(steps).repeat_interleave(rows).to(self._projections[0].device)
        return [block[index] for block in self._projections]

    def advance(self, x: Tensor, conditional: Tensor, unconditional: Tensor, step: int) -> Tensor:
        """x after Euler step `step`, guided away from the unconditional velocity."""
        guided = (1.0 + self.cfg_rate) * conditional - self.cfg_rate * unconditional
        return x + self.grid.widths[step] * guided

    def caches(self) -> list[StackCache]:
        """Empty caches for one stream, one per step."""
        return [StackCache() for _ in self.grid.times]

    def solve(
        self,
        noise: Tensor,
        mu: Tensor,
        speaker: Tensor,
        condition: Tensor,
        *,
        streaming: bool,
        steps: list[Tensor] | None = None,
    ) -> Tensor:
        """noise, mu, condition (B, T, bins), speaker (B, bins) -> mel (B, T, bins).

        `steps`, if given, collects x after each step.
        """
        batch = noise.shape[0]
        mu_rows = torch.cat((mu, torch.zeros_like(mu)))
        speaker_rows = torch.cat((speaker, torch.zeros_like(speaker)))
        condition_rows = torch.cat((condition, torch.zeros_like(condition)))
        x = noise
        for k in range(self.steps):
            velocity = self.estimator(
                torch.cat((x, x)),
                mu_rows,
                speaker_rows,
                condition_rows,
                self.projections([k]),
                streaming=streaming,
            )
            x = self.advance(x, velocity[:batch], velocity[batch:], k)
            if steps is not None:
                steps.append(x)
        return x
