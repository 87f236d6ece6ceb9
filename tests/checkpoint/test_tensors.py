"""State dicts load without running code, and what does not fit is named."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from cosyvoice_core.checkpoint.tensors import fold_weight_norm, load_strict, read_state
from cosyvoice_core.errors import CheckpointError


class RunsCode:
    """Unpickled without care, this creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def test_code_in_a_pickle_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save({"a": RunsCode(mark)}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        for mapped in (False, True):
            with pytest.raises(CheckpointError, match="more than plain tensors") as caught:
                read_state(tmp_path / name, mapped=mapped)
            assert "weights_only" not in str(caught.value)
    assert not mark.exists()


def test_training_counters_are_dropped(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "epoch": 3, "step": 10}, tmp_path / "a.pt")
    assert list(read_state(tmp_path / "a.pt")) == ["w"]


def test_mapped_and_plain_reading_agree(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).half()}
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
        plain, mapped = read_state(tmp_path / name), read_state(tmp_path / name, mapped=True)
        assert all(torch.equal(plain[key], mapped[key]) and torch.equal(plain[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([torch.ones(1)], "expected a dict"),
        ({"a": "text"}, "'a' is a str"),
        ({3: torch.ones(1)}, "3 is a Tensor"),
        ({"a": torch.ones(2, 2).to_sparse()}, "'a' is torch.sparse_coo"),
        ({"a": torch.ones(2, device="meta")}, "expected a dense tensor"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: object, problem: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=problem):
        read_state(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("zipped", [True, False])
def test_damage_gives_a_checkpoint_error(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save(
        {f"layer.{i}.weight": torch.randn(4, i + 1) for i in range(4)}, path, _use_new_zipfile_serialization=zipped
    )
    whole, chance, refused = path.read_bytes(), random.Random(5), 0
    for _ in range(300):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(4)):
            if damaged:
                damaged[chance.randrange(min(len(damaged), 900))] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state(path, mapped=chance.random() < 0.5)
        except CheckpointError as error:
            assert "a.pt" in str(error)
            refused += 1
    assert refused > 60


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"flow\.pt: file is missing"):
        read_state(tmp_path / "flow.pt")


def test_weight_norm_folds_as_torch_does() -> None:
    torch.manual_seed(0)
    for conv in (nn.Conv1d(3, 5, 4), nn.ConvTranspose1d(4, 2, 3)):
        normed = weight_norm(conv)
        state = {key: value.detach() * 1.3 + 0.1 for key, value in normed.state_dict().items()}
        normed.load_state_dict(state)
        named = {f"up.{key}": value for key, value in state.items()}
        old = {
            key.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): value
            for key, value in named.items()
        }
        for spelling in (named, old):
            folded = fold_weight_norm(spelling)
            assert set(folded) == {"up.bias", "up.weight"}
            torch.testing.assert_close(folded["up.weight"], normed.weight.detach(), rtol=1e-6, atol=1e-6)


def test_broken_weight_norm_pairs_reach_the_strict_check() -> None:
    pair = {"c.weight_g": torch.ones(3, 1, 1), "c.weight_v": torch.ones(4, 2, 2)}
    assert fold_weight_norm(pair) == pair
    assert list(fold_weight_norm({"c.weight_g": torch.ones(3, 1, 1)})) == ["c.weight_g"]


def test_strict_load_names_every_kind_of_misfit() -> None:
    module = nn.Linear(2, 3)
    with pytest.raises(CheckpointError, match=r"lm\.pt .*1 missing: bias \[3\]") as caught:
        load_strict(module, {"weight": torch.ones(3, 1), "more": torch.ones(1, dtype=torch.int8)}, "lm.pt")
    assert "1 unexpected: more [1]" in str(caught.value)
    assert "more is torch.int8" in str(caught.value)
    assert "weight is [3, 1], expected [3, 2]" in str(caught.value)


def test_half_precision_is_cast_to_float32() -> None:
    module = nn.Linear(2, 3)
    state = {"weight": torch.randn(3, 2).half(), "bias": torch.randn(3).bfloat16()}
    load_strict(module, state, "lm.pt")
    assert module.weight.dtype is torch.float32
    assert torch.equal(module.weight, state["weight"].float())
    assert torch.equal(module.bias, state["bias"].float())
