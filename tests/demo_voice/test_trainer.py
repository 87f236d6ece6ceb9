"""The loop of all stages: an interruption changes nothing, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cosyvoice_core.checkpoint.tensors import load_plain
from cosyvoice_core.errors import CheckpointError
from tools.demo_voice.trainer import Part, Plan, Step, Trainer


def _trained(folder: Path, stops: tuple[int | None, ...], seed: int = 5, plan: Plan | None = None) -> nn.Linear:
    """A small regression, interrupted after each of `stops` steps, every time in objects made anew."""
    plan = plan or Plan(steps=12, batch=4, learning_rate=0.05, warm_up=2, save_every=5)
    for stop in stops:
        torch.manual_seed(1)
        module = nn.Linear(3, 1)
        part = Part.adamw(module, plan.learning_rate)

        def step(now: Step, module: nn.Linear = module, part: Part = part) -> dict[str, Tensor]:
            x = torch.from_numpy(now.random.standard_normal((plan.batch, 3))).float()
            # Randomness of torch itself, as dropout draws it, counts as well.
            loss = (module(x + 0.1 * torch.randn_like(x)) - x.sum(1, keepdim=True)).square().mean()
            part.descend(loss, plan.clip)
            return {"loss": loss}

        trainer = Trainer(folder, {"module": part}, plan, seed, "toy")
        done = trainer.run(step, stop)
        assert done is (stop is None)
    return module


def test_an_interrupted_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, parts = _trained(tmp_path / "whole", (None,)), _trained(tmp_path / "parts", (3, 1, 5, None))
    assert torch.equal(whole.weight, parts.weight)
    assert torch.equal(whole.bias, parts.bias)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = _trained(tmp_path, (None,))
    assert torch.equal(first.weight, _trained(tmp_path, (None,)).weight)


def test_seeds_differ(tmp_path: Path) -> None:
    one, other = _trained(tmp_path / "1", (None,), seed=1), _trained(tmp_path / "2", (None,), seed=2)
    assert not torch.equal(one.weight, other.weight)


def test_the_state_is_plain_and_whole(tmp_path: Path) -> None:
    _trained(tmp_path, (7,))
    state = load_plain(tmp_path / "toy.state.pt")
    assert isinstance(state, dict)
    assert state["step"] == 7
    assert [path.name for path in tmp_path.iterdir()] == ["toy.state.pt"]


def test_the_state_of_another_seed_is_refused(tmp_path: Path) -> None:
    _trained(tmp_path, (2,), seed=1)
    with pytest.raises(CheckpointError, match="begun with seed 1, not 2"):
        _trained(tmp_path, (2,), seed=2)


def test_a_time_bound_ends_the_stage_before_its_steps(tmp_path: Path) -> None:
    plan = Plan(steps=10**9, batch=1, learning_rate=0.01, minutes=0.2 / 60, save_every=10**6)
    _trained(tmp_path, (None,), plan=plan)
    state = load_plain(tmp_path / "toy.state.pt")
    assert isinstance(state, dict)
    assert 0 < state["step"] < 10**9


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    part = Part.adamw(nn.Linear(1, 1), 0.1)
    trainer = Trainer(tmp_path, {"module": part}, Plan(3, 1, 0.1), 0, "toy")
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.run(lambda now: {"loss": torch.tensor(float("nan"))})


def test_plans_are_checked() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1"):
        Plan(0, 1, 0.1)
    with pytest.raises(ValueError, match="learning_rate"):
        Plan(1, 1, 0.0)
