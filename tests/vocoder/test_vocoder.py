"""Loading of checkpoints, checks of shapes, and the reference's cross-fade."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.errors import CheckpointError, InputError
from cosyvoice_core.vocoder import SourceNoise, Vocoder
from cosyvoice_core.vocoder.crossfade import crossfade


@pytest.fixture
def state(golden_acoustic: Path) -> dict[str, Tensor]:
    return read_state(golden_acoustic / "hift.pt")


def speech(vocoder: Vocoder) -> Tensor:
    mel = torch.randn(1, 80, 12, generator=torch.Generator().manual_seed(0))
    return vocoder.vocode(mel, SourceNoise(0))


def test_state_of_the_training_wrapper_loads_alike(tiny: Vocoder, state: dict[str, Tensor]) -> None:
    wrapped = {f"generator.{name}": value for name, value in state.items()}
    wrapped["discriminator.convs.0.weight"] = torch.zeros(3)
    assert torch.equal(speech(Vocoder.from_state(wrapped, tiny.config, "hift.pt")), speech(tiny))


def test_old_spelling_of_weight_norm_loads_alike(tiny: Vocoder, state: dict[str, Tensor]) -> None:
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for name, value in state.items()
    }
    assert old.keys() != state.keys()
    assert torch.equal(speech(Vocoder.from_state(old, tiny.config, "hift.pt")), speech(tiny))


@pytest.mark.parametrize("part", ["conv_pre.bias", "f0_predictor.classifier.weight", "m_source.l_linear.bias"])
def test_tensors_that_do_not_fit_are_named_as_in_the_file(tiny: Vocoder, state: dict[str, Tensor], part: str) -> None:
    wrong = [
        {name: value for name, value in state.items() if name != part},
        state | {part: torch.zeros(3, 5)},
        state | {f"{part}.more": torch.zeros(1)},
    ]
    for broken, problem in zip(wrong, ("missing", "mis-shaped", "unexpected"), strict=True):
        with pytest.raises(CheckpointError, match=rf"some/hift\.pt.*{problem}: {part}"):
            Vocoder.from_state(broken, tiny.config, "some/hift.pt")


def test_weights_are_not_trained_here(tiny: Vocoder) -> None:
    assert not any(parameter.requires_grad for parameter in tiny.parameters())


def test_shapes_are_checked(tiny: Vocoder) -> None:
    mel, source = torch.zeros(1, 80, 4), torch.zeros(1, 1, 1920)
    with pytest.raises(InputError, match="mel"):
        tiny.f0(torch.zeros(1, 79, 4))
    with pytest.raises(InputError, match="mel"):
        tiny.vocode(mel[0], SourceNoise(0))
    with pytest.raises(InputError, match="source"):
        tiny.decode(mel, source[:, :, :-1])
    with pytest.raises(InputError, match="noise"):
        tiny.vocode(mel, torch.zeros(1, 1920, 8))
    with pytest.raises(InputError, match="noise"):
        tiny.reference_vocode(mel, torch.zeros(1, 1919, 9), source[:, :, :0])
    with pytest.raises(InputError, match="cache_source"):
        tiny.reference_vocode(mel, torch.zeros(1, 1920, 9), torch.zeros(1, 1, 1921))


def test_reference_call_leaves_its_inputs_alone(tiny: Vocoder) -> None:
    mel, noise, cached = torch.randn(1, 80, 4), torch.randn(1, 1920, 9), torch.randn(1, 1, 700)
    before = mel.clone(), noise.clone(), cached.clone()
    tiny.reference_vocode(mel, noise, cached)
    assert all(torch.equal(now, then) for now, then in zip((mel, noise, cached), before, strict=True))


def test_crossfade_is_a_weighted_sum_over_the_overlap() -> None:
    new, old = torch.randn(1, 50), torch.randn(1, 40)
    faded = crossfade(new, old, 16)
    window = np.hamming(32)
    expected = new[0, :16].numpy() * window[:16] + old[0, -16:].numpy() * window[16:]
    assert np.allclose(faded[0, :16].numpy(), expected, atol=1e-6)
    assert torch.equal(faded[:, 16:], new[:, 16:])
    for short in ((new[:, :15], old), (new, old[:, :15])):
        with pytest.raises(InputError, match="16 samples"):
            crossfade(*short, 16)
