"""The worked-out key tables equal the official files, and fit checkpoints of other dimensions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from cosyvoice_core.checkpoint.layout import flow_layout, lm_layout, vocoder_layout
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, VocoderConfig

DATA = Path(__file__).parent / "data"

LAYOUTS = {
    "llm": lm_layout(LMConfig()),
    "flow": flow_layout(FlowConfig()),
    "hift": vocoder_layout(VocoderConfig()),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_default_dimensions_give_the_official_keys_shapes_and_order(name: str) -> None:
    official = {key: tuple(shape) for key, shape in json.loads((DATA / f"{name}_keys.json").read_text()).items()}
    assert list(LAYOUTS[name].items()) == list(official.items())


def test_demo_checkpoint_fits_its_own_settings(demo_checkpoint: Path) -> None:
    config = read_model_config(demo_checkpoint)
    for name, layout in layouts(config).items():
        state = read_state(demo_checkpoint / name, mapped=True)
        assert {key: tuple(tensor.shape) for key, tensor in state.items()} == layout


@pytest.mark.parametrize(
    "name", ["vocab_size", "speaker_dim", "encoder_ffn", "encoder_blocks", "upsampled_blocks", "channels"]
)
def test_every_flow_dimension_moves_the_layout(name: str) -> None:
    changed = replace(FlowConfig(), **{name: getattr(FlowConfig(), name) + 2})
    assert flow_layout(changed) != LAYOUTS["flow"]


@pytest.mark.parametrize("name", ["hidden", "layers", "head_dim", "intermediate", "text_rows", "speech_tokens"])
def test_every_language_model_dimension_moves_the_layout(name: str) -> None:
    changed = replace(LMConfig(), **{name: getattr(LMConfig(), name) + 2})
    assert lm_layout(changed) != LAYOUTS["llm"]


@pytest.mark.parametrize("name", ["harmonics", "f0_channels"])
def test_every_vocoder_dimension_moves_the_layout(name: str) -> None:
    changed = replace(VocoderConfig(), **{name: getattr(VocoderConfig(), name) + 2})
    assert vocoder_layout(changed) != LAYOUTS["hift"]


def layouts(config: ModelConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        "llm.pt": lm_layout(config.lm),
        "flow.pt": flow_layout(config.flow),
        "hift.pt": vocoder_layout(config.vocoder),
    }
