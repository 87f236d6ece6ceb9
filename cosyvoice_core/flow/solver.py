"""Ten Euler steps from noise to mel, with guidance away from the unconditional velocity.

Knows the time grid and guidance, not where conditions come from. Source: docs/model.md, "Flow matching".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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
        self._widths = [block.shape[1] for block in by_step[0]]
        # (steps, channels of all residual blocks).
        self._projections = torch.cat([torch.cat(blocks, dim=1) for blocks in by_step])
        self._step_widths = torch.tensor(self.grid.widths, device=parameter.device)

    @property
    def steps(self) -> int:
        return len(self.grid.times)

    def projections(self, steps: Sequence[int], rows: Sequence[int]) -> list[Tensor]:
        """Time projections for streams at the given steps, so many rows of each: (all rows, channels) by block."""
        chosen = [self._projections[step].expand(count, -1) for step, count in zip(steps, rows, strict=True)]
        return list(torch.cat(chosen).split_with_sizes(self._widths, dim=1))

    def projections_at(self, steps: Tensor) -> list[Tensor]:
        """Time projections for rows at steps (rows,) on the device: (rows, channels) by block."""
        return list(self._projections.index_select(0, steps).split_with_sizes(self._widths, dim=1))

    def advance(self, x: Tensor, conditional: Tensor, unconditional: Tensor, step: int) -> Tensor:
        """x after Euler step `step`, guided away from the unconditional velocity."""
        return x + self.grid.widths[step] * self._guided(conditional, unconditional)

    def advance_at(self, x: Tensor, conditional: Tensor, unconditional: Tensor, steps: Tensor) -> Tensor:
        """`advance` for x (B, T, bins) of streams at steps (B,) on the device."""
        widths = self._step_widths.index_select(0, steps)[:, None, None]
        return (x + widths * self._guided(conditional, unconditional)).to(x.dtype)

    def _guided(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        return (1.0 + self.cfg_rate) * conditional - self.cfg_rate * unconditional

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
        conditions = self.estimator.conditions(
            torch.cat((mu, torch.zeros_like(mu))),
            torch.cat((speaker, torch.zeros_like(speaker))),
            torch.cat((condition, torch.zeros_like(condition))),
        )
        x = noise
        for k in range(self.steps):
            velocity = self.estimator.velocity(
                torch.cat((x, x)), conditions, self.projections([k], [2 * batch]), streaming=streaming
            )
            x = self.advance(x, velocity[:batch], velocity[batch:], k)
            if steps is not None:
                steps.append(x)
        return x
