"""Token encoder, estimator, solver and whole flow against the original implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.flow import FlowModel, FlowSession
from cosyvoice_core.flow.encoder import relative_sinusoid
from cosyvoice_core.flow.noise import MAX_FRAMES
from cosyvoice_core.flow.residual import time_sinusoid
from tests.golden_tests.configs import flow_config

pytestmark = pytest.mark.golden

LAYER = 2e-5
MEL = 5e-5
CHANNELS_FIRST = {"down_resnet", "down_conv", "final_block"}
"""Layers of the estimator whose stored output is (B, C, T); the others are (B, T, C)."""


@pytest.fixture(scope="module")
def model(golden_acoustic: Path) -> FlowModel:
    return FlowModel.from_state(read_state(golden_acoustic / "flow.pt"), flow_config(golden_acoustic / "config.json"))


def arrays(directory: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(directory / f"{name}.npz") as stored:
        return dict(stored)


def tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array)


def assert_close(actual: Tensor, expected: np.ndarray, tolerance: float) -> None:
    assert tuple(actual.shape) == expected.shape
    assert (actual - tensor(expected)).abs().max().item() <= tolerance


@contextmanager
def outputs_of(**modules: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect what each module returned last."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> object:
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            seen[name] = output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def test_start_noise(model: FlowModel, golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "noise")
    head, tail = golden["rand_noise_head"], golden["rand_noise_tail"]
    # the generator's vector path differs by up to 2.3e-6 between instruction sets
    assert_close(model.noise.frames(0, head.shape[1]).T, head, 1e-5)
    assert_close(model.noise.frames(MAX_FRAMES - tail.shape[1], tail.shape[1]).T, tail, 1e-5)


def test_time_grid_and_embedding(model: FlowModel, golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "schedule")
    grid = model.solver.grid
    assert_close(torch.tensor(grid.times), golden["t"], 1e-7)
    assert_close(torch.tensor(grid.widths), golden["dt"], 1e-7)
    assert_close(torch.tensor([*grid.times, grid.times[-1] + grid.widths[-1]]), golden["t_span"], 2e-7)
    times = tensor(golden["t"])
    estimator = model.network.decoder.estimator
    assert_close(time_sinusoid(times, golden["time_sinusoid"].shape[1]), golden["time_sinusoid"], 1e-4)
    assert_close(estimator.time_mlp(times), golden["time_mlp"], LAYER)


def test_relative_sinusoid(golden_acoustic: Path) -> None:
    expected = arrays(golden_acoustic, "encoder")["pos_emb_size5"]
    reach = expected.shape[1] // 2
    actual = relative_sinusoid(reach, -reach, expected.shape[2], torch.device("cpu"))
    assert_close(actual[None], expected, 1e-6)


def test_input_embedding(model: FlowModel, golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "encoder")
    assert_close(model.embed(tensor(golden["tokens"])[0]), golden["input_embedding"], 1e-7)


@pytest.mark.parametrize("mode", ["full", "stream"])
@pytest.mark.parametrize("end", ["final", "context"])
def test_encoder(model: FlowModel, golden_acoustic: Path, mode: str, end: str) -> None:
    golden = arrays(golden_acoustic, "encoder")
    embedded = tensor(golden["input_embedding"])
    lookahead = model.config.lookahead_tokens
    tokens = embedded if end == "final" else embedded[:, :-lookahead]
    context = None if end == "final" else embedded[:, -lookahead:]
    encoder = model.network.encoder
    with (
        torch.inference_mode(),
        outputs_of(
            pre_lookahead=encoder.pre_lookahead_layer,
            layer0_attn=encoder.encoders[0].self_attn,
            layer0=encoder.encoders[0],
            encoders=encoder.encoders[-1],
            up_layer=encoder.up_layer,
            up_embed=encoder.up_embed,
        ) as seen,
    ):
        out = encoder(tokens, context, streaming=mode == "stream")
        seen["embed"] = encoder.embed(tokens)
    assert_close(out, golden[f"out_{mode}_{end}"], LAYER)
    stored = [name for name in golden if name.endswith(f"_{mode}_{end}") and not name.startswith("out_")]
    for name in stored:
        assert_close(seen[name.removesuffix(f"_{mode}_{end}")], golden[name], LAYER)


def test_encoder_arrays_are_all_used(golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "encoder")
    inner = ("embed", "pre_lookahead", "layer0_attn", "layer0", "encoders", "up_layer", "up_embed", "out")
    modes = ("full_final", "full_context", "stream_final", "stream_context")
    known = {"tokens", "input_embedding", "pos_emb_size5"} | {f"{name}_{mode}" for name in inner for mode in modes}
    assert set(golden) <= known


@pytest.mark.parametrize("mode", ["full", "stream"])
@pytest.mark.parametrize("padded", [False, True])
def test_estimator(model: FlowModel, golden_acoustic: Path, mode: str, padded: bool) -> None:
    golden = arrays(golden_acoustic, "estimator")
    estimator = model.network.decoder.estimator
    mask = golden["mask_padded" if padded else "mask"]
    valid = tensor(mask)[:, 0] > 0 if padded or not mask.all() else None

    def frames(name: str) -> Tensor:
        return tensor(golden[name]).transpose(1, 2)

    with (
        torch.inference_mode(),
        outputs_of(
            down_resnet=estimator.down_blocks[0][0],
            down_tf0=estimator.down_blocks[0][1][0],
            down_conv=estimator.down_blocks[0][2],
            mid_out=estimator.mid_blocks[-1][1][-1],
            final_block=estimator.final_block,
        ) as seen,
    ):
        out = estimator(
            frames("x"),
            frames("mu"),
            tensor(golden["spks"]),
            frames("cond"),
            estimator.project_time(tensor(golden["t"])),
            streaming=mode == "stream",
            valid=valid,
        )
    assert_close(out.transpose(1, 2), golden[f"out_{mode}{'_padded' if padded else ''}"], LAYER)
    if mode == "stream" and not padded:
        for name, value in seen.items():
            assert_close(value.transpose(1, 2) if name in CHANNELS_FIRST else value, golden[f"{name}_stream"], LAYER)


@pytest.mark.parametrize("mode", ["full", "stream"])
@pytest.mark.parametrize("end", ["final", "nonfinal"])
def test_flow_mel(model: FlowModel, golden_acoustic: Path, mode: str, end: str) -> None:
    golden = arrays(golden_acoustic, "flow")
    mel = model.mel(
        tensor(golden["token"])[0],
        tensor(golden["prompt_token"])[0],
        tensor(golden["prompt_feat"])[0],
        tensor(golden["embedding"])[0],
        streaming=mode == "stream",
        finalize=end == "final",
    )
    assert_close(mel[None], golden[f"mel_{mode}_{end}"], MEL)


@pytest.mark.parametrize(("mode", "end"), [("full", "final"), ("stream", "nonfinal")])
def test_flow_mel_without_prompt(model: FlowModel, golden_acoustic: Path, mode: str, end: str) -> None:
    golden = arrays(golden_acoustic, "flow")
    mel = model.mel(
        tensor(golden["token"])[0],
        torch.zeros(0, dtype=torch.int32),
        torch.zeros(0, model.config.mel_bins),
        tensor(golden["embedding"])[0],
        streaming=mode == "stream",
        finalize=end == "final",
    )
    assert_close(mel[None], golden[f"mel_noprompt_{mode}_{end}"], MEL)


def test_conditions_and_every_euler_step(model: FlowModel, golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "flow")
    tokens = torch.cat((tensor(golden["prompt_token"])[0], tensor(golden["token"])[0]))
    lookahead = model.config.lookahead_tokens
    with torch.inference_mode():
        embedded = model.embed(tokens)
        hidden = model.network.encoder(embedded[:, :-lookahead], embedded[:, -lookahead:], streaming=True)
        mu = model.network.encoder_proj(hidden)
        frames = mu.shape[1]
        speaker = model.speaker(tensor(golden["embedding"])[0])
        condition = model.condition(tensor(golden["prompt_feat"])[0], 0, frames)
        noise = model.noise.frames(0, frames)[None]
        steps: list[Tensor] = []
        model.solver.solve(noise, mu, speaker, condition, streaming=True, steps=steps)
        estimator = model.network.decoder.estimator
        zeros = torch.zeros_like(mu)
        velocity = estimator(
            torch.cat((noise, noise)),
            torch.cat((mu, zeros)),
            torch.cat((speaker, torch.zeros_like(speaker))),
            torch.cat((condition, zeros)),
            estimator.project_time(torch.full((2,), model.solver.grid.times[0])),
            streaming=True,
        )
    by_suffix = {
        name.split("_")[0]: name for name in golden if name.startswith(("mu_", "cond_", "spks", "velocity", "x_"))
    }
    assert_close(mu.transpose(1, 2), golden[by_suffix["mu"]], LAYER)
    assert_close(condition.transpose(1, 2), golden[by_suffix["cond"]], 1e-7)
    assert_close(speaker, golden[by_suffix["spks"]], LAYER)
    assert_close(velocity.transpose(1, 2), golden[by_suffix["velocity"]], LAYER)
    assert_close(torch.cat(steps).transpose(1, 2), golden[by_suffix["x"]], MEL)


def test_incremental_session_equals_original_streaming_flow(model: FlowModel, golden_acoustic: Path) -> None:
    """The sessions that store the whole streaming mel are its target; hops of 7 tokens cross every boundary."""
    checked = 0
    for path in sorted(golden_acoustic.glob("session_*.npz")):
        golden = arrays(golden_acoustic, path.stem)
        if "mel_streaming_true_final" not in golden:
            continue
        checked += 1
        session = FlowSession(
            model,
            tensor(golden["prompt_token"])[0],
            tensor(golden["prompt_feat"])[0],
            tensor(golden["embedding"])[0],
        )
        tokens = tensor(golden["token"])[0]
        pieces = [
            session.push(tokens[start : start + 7], last=start + 7 >= len(tokens)) for start in range(0, len(tokens), 7)
        ]
        expected = golden["mel_streaming_true_final"]
        assert_close(torch.cat(pieces, dim=1).view(expected.shape), expected, MEL)
    assert checked > 0
