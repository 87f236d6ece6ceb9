"""Token encoder, estimator, solver and whole flow against the original implementation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.flow import FlowModel, FlowSession
from cosyvoice_core.flow.encoder import TokenEncoder, relative_sinusoid
from cosyvoice_core.flow.estimator import Estimator
from cosyvoice_core.flow.noise import MAX_FRAMES
from cosyvoice_core.flow.residual import time_sinusoid
from tests.golden_tests.arrays import Arrays, largest_gap, matches, of_its_size, read_arrays, sessions, unknown
from tests.golden_tests.configs import flow_config

pytestmark = pytest.mark.golden

LAYER = 2e-5
MEL = 5e-5
ENCODER_END = r"(full|stream)_(final|context)"
ESTIMATOR_END = r"(full|stream)(_padded)?"
FLOW_END = r"(full|stream)_(final|nonfinal)"
KNOWN = {
    "noise": ["rand_noise_head", "rand_noise_tail"],
    "schedule": ["t_span", "t", "dt", "time_sinusoid", "time_mlp"],
    "encoder": [
        *("tokens", "input_embedding", r"pos_emb_size\d+", f"out_{ENCODER_END}", rf"layer\d+(_attn)?_{ENCODER_END}"),
        f"(embed|pre_lookahead|encoders|up_layer|up_embed)_{ENCODER_END}",
    ],
    "estimator": [
        *("x", "mu", "cond", "spks", "t", "mask", "mask_padded", f"out_{ESTIMATOR_END}"),
        rf"(down_resnet|down_tf\d+|down_conv|mid_out|final_block)_{ESTIMATOR_END}",
    ],
    "flow": [
        *("token", "prompt_token", "prompt_feat", "embedding", "spks", f"mel_(noprompt_)?{FLOW_END}"),
        f"(mu|cond|velocity_step1|x_steps)_{FLOW_END}",
    ],
}
"""What the arrays of each file may be called; each of these names is compared below."""
CHANNELS_FIRST = {"down_resnet", "down_conv", "final_block"}
"""Layers of the estimator whose stored output is (B, C, T); the others are (B, T, C)."""


@pytest.fixture(scope="module")
def model(golden_acoustic: Path) -> FlowModel:
    return FlowModel.from_state(read_state(golden_acoustic / "flow.pt"), flow_config(golden_acoustic / "config.json"))


def arrays(directory: Path, name: str) -> Arrays:
    return read_arrays(directory / f"{name}.npz")


def tensor(array: npt.NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(array)


def assert_close(actual: Tensor, expected: npt.NDArray[np.generic], tolerance: float) -> None:
    assert largest_gap(actual, expected) <= tolerance


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


@pytest.mark.parametrize("file", KNOWN)
def test_every_array_is_compared(golden_acoustic: Path, file: str) -> None:
    assert unknown(arrays(golden_acoustic, file), KNOWN[file]) == []


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
    golden = arrays(golden_acoustic, "encoder")
    for found in matches(golden, r"pos_emb_size(\d+)"):
        expected = golden[found[0]]
        reach = int(found[1]) - 1
        assert_close(relative_sinusoid(reach, -reach, expected.shape[2], torch.device("cpu"))[None], expected, 1e-6)


def test_input_embedding(model: FlowModel, golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "encoder")
    assert_close(model.embed(tensor(golden["tokens"])[0]), golden["input_embedding"], 1e-7)


def encoder_layers(encoder: TokenEncoder) -> dict[str, nn.Module]:
    blocks = dict(enumerate(encoder.encoders))
    return {
        "pre_lookahead": encoder.pre_lookahead_layer,
        "encoders": encoder.encoders[-1],
        "up_layer": encoder.up_layer,
        "up_embed": encoder.up_embed,
        **{f"layer{number}": block for number, block in blocks.items()},
        **{f"layer{number}_attn": block.self_attn for number, block in blocks.items()},
    }


@pytest.mark.parametrize("mode", ["full", "stream"])
@pytest.mark.parametrize("end", ["final", "context"])
def test_encoder(model: FlowModel, golden_acoustic: Path, mode: str, end: str) -> None:
    golden = arrays(golden_acoustic, "encoder")
    embedded = tensor(golden["input_embedding"])
    lookahead = model.config.lookahead_tokens
    tokens = embedded if end == "final" else embedded[:, :-lookahead]
    context = None if end == "final" else embedded[:, -lookahead:]
    encoder = model.network.encoder
    with torch.inference_mode(), outputs_of(**encoder_layers(encoder)) as seen:
        out = encoder(tokens, context, streaming=mode == "stream")
        seen["embed"] = encoder.embed(tokens)
    assert_close(out, golden[f"out_{mode}_{end}"], LAYER)
    for name in golden.keys() - {f"out_{mode}_{end}"}:
        if name.endswith(f"_{mode}_{end}"):
            layer = seen[name.removesuffix(f"_{mode}_{end}")]
            assert_close(layer, golden[name], of_its_size(LAYER, golden[name]))


def test_layers_of_the_encoder_are_stored_for_some_mode(golden_acoustic: Path) -> None:
    matches(arrays(golden_acoustic, "encoder"), KNOWN["encoder"][-1])


def estimator_layers(estimator: Estimator) -> dict[str, nn.Module]:
    resnet, transformers, convolution = estimator.down_blocks[0]
    return {
        "down_resnet": resnet,
        "down_conv": convolution,
        "mid_out": estimator.mid_blocks[-1][1][-1],
        "final_block": estimator.final_block,
        **{f"down_tf{number}": block for number, block in enumerate(transformers)},
    }


@pytest.mark.parametrize("mode", ["full", "stream"])
@pytest.mark.parametrize("padded", [False, True])
def test_estimator(model: FlowModel, golden_acoustic: Path, mode: str, padded: bool) -> None:
    golden = arrays(golden_acoustic, "estimator")
    estimator = model.network.decoder.estimator
    mask = golden["mask_padded" if padded else "mask"]
    valid = tensor(mask)[:, 0] > 0 if padded or not mask.all() else None
    end = f"{mode}{'_padded' if padded else ''}"

    def frames(name: str) -> Tensor:
        return tensor(golden[name]).transpose(1, 2)

    with torch.inference_mode(), outputs_of(**estimator_layers(estimator)) as seen:
        out = estimator(
            frames("x"),
            frames("mu"),
            tensor(golden["spks"]),
            frames("cond"),
            estimator.project_time(tensor(golden["t"])),
            streaming=mode == "stream",
            valid=valid,
        )
    assert_close(out.transpose(1, 2), golden[f"out_{end}"], LAYER)
    for name, value in seen.items():
        expected = golden.get(f"{name}_{end}")
        if expected is not None:
            layer = value.transpose(1, 2) if name in CHANNELS_FIRST else value
            assert_close(layer, expected, of_its_size(LAYER, expected))


def test_layers_of_the_estimator_are_stored_for_some_mode(golden_acoustic: Path) -> None:
    matches(arrays(golden_acoustic, "estimator"), KNOWN["estimator"][-1])


def test_flow_mel(model: FlowModel, golden_acoustic: Path) -> None:
    """Both modes and both ends with a prompt, and whatever is stored without one."""
    golden = arrays(golden_acoustic, "flow")
    found = matches(golden, f"mel_(noprompt_)?{FLOW_END}")
    prompted = {(mode, end) for without, mode, end in (match.groups() for match in found) if without is None}
    assert prompted == {(mode, end) for mode in ("full", "stream") for end in ("final", "nonfinal")}
    assert len(found) > len(prompted), "nothing is stored without a prompt"
    for match in found:
        without, mode, end = match.groups()
        prompt, prompt_mel = (tensor(golden[name])[0] for name in ("prompt_token", "prompt_feat"))
        mel = model.mel(
            tensor(golden["token"])[0],
            prompt[:0] if without else prompt,
            prompt_mel[:0] if without else prompt_mel,
            tensor(golden["embedding"])[0],
            streaming=mode == "stream",
            finalize=end == "final",
        )
        assert_close(mel[None], golden[match[0]], MEL)


def test_conditions_and_every_euler_step(model: FlowModel, golden_acoustic: Path) -> None:
    golden = arrays(golden_acoustic, "flow")
    tokens = torch.cat((tensor(golden["prompt_token"])[0], tensor(golden["token"])[0]))
    lookahead = model.config.lookahead_tokens
    speaker = model.speaker(tensor(golden["embedding"])[0])
    assert_close(speaker, golden["spks"], LAYER)
    kinds = ("mu", "cond", "velocity_step1", "x_steps")
    for mode, end in {match.groups() for kind in kinds for match in matches(golden, f"{kind}_{FLOW_END}")}:
        streaming = mode == "stream"
        with torch.inference_mode():
            embedded = model.embed(tokens)
            cut = embedded.shape[1] - (0 if end == "final" else lookahead)
            context = None if end == "final" else embedded[:, cut:]
            mu = model.network.encoder_proj(model.network.encoder(embedded[:, :cut], context, streaming=streaming))
            frames = mu.shape[1]
            condition = model.condition(tensor(golden["prompt_feat"])[0], 0, frames)
            noise = model.noise.frames(0, frames)[None]
            steps: list[Tensor] = []
            model.solver.solve(noise, mu, speaker, condition, streaming=streaming, steps=steps)
            estimator = model.network.decoder.estimator
            zeros = torch.zeros_like(mu)
            velocity = estimator(
                torch.cat((noise, noise)),
                torch.cat((mu, zeros)),
                torch.cat((speaker, torch.zeros_like(speaker))),
                torch.cat((condition, zeros)),
                estimator.project_time(torch.full((2,), model.solver.grid.times[0])),
                streaming=streaming,
            )
        ours = {
            "mu": (mu, LAYER),
            "cond": (condition, 1e-7),
            "velocity_step1": (velocity, LAYER),
            "x_steps": (torch.cat(steps), MEL),
        }
        for kind in kinds:
            value, tolerance = ours[kind]
            if (expected := golden.get(f"{kind}_{mode}_{end}")) is not None:
                assert_close(value.transpose(1, 2), expected, tolerance)


def test_incremental_session_equals_original_streaming_flow(model: FlowModel, golden_acoustic: Path) -> None:
    """The sessions that store the whole streaming mel are its target; hops of 7 tokens cross every boundary."""
    stored = [session for session in sessions(golden_acoustic).values() if "mel_streaming_true_final" in session]
    assert stored
    for golden in stored:
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
