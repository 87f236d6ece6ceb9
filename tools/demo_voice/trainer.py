"""The loop that every training stage runs in: saves, resumes, decays the learning rate, shows progress.

All randomness of a step comes from the seed and the step's number, so that a run that was interrupted ends with the
same weights as one that was not. Knows no model and no data.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from cosyvoice_core.checkpoint.tensors import load_plain
from cosyvoice_core.errors import CheckpointError

_SMOOTHING = 0.98


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast a stage trains.

    minutes: the stage ends after so many, even when steps are left, and the learning rate has then decayed as after
    the last step; 0 sets no such bound.
    """

    steps: int
    batch: int
    learning_rate: float
    warm_up: int = 100
    clip: float = 3.0
    save_every: int = 200
    minutes: float = 0.0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0 or self.clip <= 0 or self.warm_up < 0 or self.minutes < 0:
            raise ValueError("learning_rate and clip must be positive, warm_up and minutes not negative")


@dataclass(frozen=True, slots=True)
class Part:
    """A module that one optimiser trains."""

    module: nn.Module
    optimiser: torch.optim.Optimizer
    learning_rate: float

    @classmethod
    def adamw(cls, module: nn.Module, learning_rate: float, betas: tuple[float, float] = (0.9, 0.98)) -> Part:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return cls(module, torch.optim.AdamW(parameters, learning_rate, betas=betas, weight_decay=0.01), learning_rate)

    def descend(self, loss: Tensor, clip: float) -> None:
        """One optimiser step down the gradient of `loss`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), clip)
        self.optimiser.step()


@dataclass(frozen=True, slots=True)
class Step:
    """Number of a step and the only randomness it may use. progress: 0 at the first step, 1 after the last."""

    number: int
    progress: float
    random: np.random.Generator


StepFunction = Callable[[Step], Mapping[str, Tensor]]
"""Trains the parts by one step; returns losses to show."""


class Trainer:
    """Runs one stage in a folder; calling `run` again goes on where the last complete save left off."""

    def __init__(self, folder: Path, parts: Mapping[str, Part], plan: Plan, seed: int, title: str) -> None:
        self._file = folder / f"{title}.state.pt"
        self._parts = dict(parts)
        self._plan = plan
        self._seed = seed
        self._title = title
        self._step = 0
        self._spent = 0.0
        self._losses: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def losses(self) -> dict[str, float]:
        """Losses so far, smoothed."""
        return dict(self._losses)

    def run(self, step_function: StepFunction, stop_after: int | None = None) -> bool:
        """Train until the plan is fulfilled, or for `stop_after` steps. Returns whether it is fulfilled.

        Raises FloatingPointError when a loss is no number; CheckpointError when saved state fits other modules.
        """
        self._resume()
        began, first = time.monotonic() - self._spent, self._step
        with tqdm(total=self._plan.steps, initial=first, desc=self._title, disable=None) as bar:
            while (progress := self._progress()) < 1.0 and self._step - first != stop_after:
                self._set_rates(progress)
                torch.manual_seed(self._seed * 1_000_003 + self._step)
                step = Step(self._step, progress, np.random.default_rng([self._seed, self._step]))
                self._note({name: float(loss.detach()) for name, loss in step_function(step).items()})
                self._step += 1
                self._spent = time.monotonic() - began
                bar.update()
                bar.set_postfix({name: f"{loss:.3f}" for name, loss in self._losses.items()}, refresh=False)
                if self._step % self._plan.save_every == 0:
                    self._save()
        self._save()
        return self._progress() >= 1.0

    def _progress(self) -> float:
        by_time = self._spent / (60 * self._plan.minutes) if self._plan.minutes else 0.0
        return min(1.0, max(self._step / self._plan.steps, by_time))

    def _set_rates(self, progress: float) -> None:
        scale = min(1.0, (self._step + 1) / (self._plan.warm_up + 1)) * (1.0 - progress)
        for part in self._parts.values():
            for group in part.optimiser.param_groups:
                group["lr"] = part.learning_rate * scale

    def _note(self, losses: dict[str, float]) -> None:
        for name, loss in losses.items():
            if not np.isfinite(loss):
                raise FloatingPointError(f"{self._title}, step {self._step}: loss {name} is {loss}")
            before = self._losses.get(name, loss)
            self._losses[name] = _SMOOTHING * before + (1 - _SMOOTHING) * loss

    def _save(self) -> None:
        save_atomically(
            {
                "step": self._step,
                "spent": self._spent,
                "seed": self._seed,
                "losses": self._losses,
                "modules": {name: part.module.state_dict() for name, part in self._parts.items()},
                "optimisers": {name: part.optimiser.state_dict() for name, part in self._parts.items()},
            },
            self._file,
        )

    def _resume(self) -> None:
        if not self._file.is_file():
            return
        state = load_plain(self._file)
        if not isinstance(state, dict) or set(state.get("modules", {})) != set(self._parts):
            raise CheckpointError(f"{self._file}: is the state of another stage; delete it to begin anew")
        if state["seed"] != self._seed:
            raise CheckpointError(f"{self._file}: was begun with seed {state['seed']}, not {self._seed}")
        for name, part in self._parts.items():
            try:
                part.module.load_state_dict(state["modules"][name])
            except RuntimeError as error:
                raise CheckpointError(f"{self._file}: {name} has other dimensions; delete it to begin anew") from error
            part.optimiser.load_state_dict(state["optimisers"][name])
        self._step, self._spent, self._losses = state["step"], state["spent"], state["losses"]


def save_atomically(state: object, path: Path) -> None:
    """`torch.save` that leaves the old file or the new one, never half of either."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where training runs, and whether its products are taken in bfloat16."""

    device: torch.device
    bfloat16: bool

    @classmethod
    def here(cls) -> Machine:
        """A GPU if there is one; bfloat16 where the hardware multiplies it."""
        if torch.cuda.is_available():
            return cls(torch.device("cuda"), torch.cuda.is_bf16_supported())
        return cls(torch.device("cpu"), torch.cpu._is_avx512_bf16_supported())

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)
