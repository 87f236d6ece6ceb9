"""Settings become a ModelConfig, and what the architecture does not support is refused by name."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cosyvoice_core.checkpoint.official_yaml import official_yaml
from cosyvoice_core.checkpoint.qwen_config import qwen_config
from cosyvoice_core.checkpoint.settings import count_upsampled_blocks, read_lm_config, read_model_config
from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, SamplingConfig, VocoderConfig
from cosyvoice_core.errors import CheckpointError

SMALL = ModelConfig(
    lm=LMConfig(
        hidden=256,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=64,
        intermediate=704,
        rope_theta=10000.0,
        text_rows=640,
        max_positions=2048,
        sampling=SamplingConfig(top_p=0.8, top_k=25, window=10, tau=1.0),
    ),
    flow=FlowConfig(
        encoder_dim=160,
        encoder_heads=4,
        encoder_ffn=480,
        encoder_blocks=2,
        channels=192,
        estimator_heads=2,
        blocks_per_stage=1,
        mid_stages=2,
    ),
    vocoder=VocoderConfig(base_channels=128, f0_channels=128),
)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Settings of a small model without weights, free to be altered."""
    # As the official file, which does not say how many upsampled blocks there are.
    (tmp_path / "cosyvoice2.yaml").write_text(re.sub(r"(?m)^ *num_up_blocks: .*\n", "", official_yaml(SMALL)))
    (tmp_path / "CosyVoice-BlankEN").mkdir()
    # As the official file, without a size of the heads of its own.
    values = {key: value for key, value in qwen_config(SMALL.lm).items() if key != "head_dim"}
    (tmp_path / "CosyVoice-BlankEN" / "config.json").write_text(json.dumps(values))
    return tmp_path


def put(folder: Path, pattern: str, replacement: str) -> None:
    """Alter one place of the yaml file."""
    path = folder / "cosyvoice2.yaml"
    text, count = re.subn(pattern, replacement, path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


def put_json(folder: Path, **values: object) -> Path:
    path = folder / "CosyVoice-BlankEN" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


def test_demo_settings(demo_checkpoint: Path) -> None:
    demo = read_model_config(demo_checkpoint)
    assert demo.lm.text_rows < 2000
    assert demo.flow.vocab_size == demo.lm.speech_tokens
    assert demo.vocoder.samples_per_frame == 480


def test_settings_stand_without_weights(copied: Path) -> None:
    assert read_model_config(copied) == SMALL


@pytest.mark.skipif("COSYVOICE_REFERENCE_DATA" not in os.environ, reason="COSYVOICE_REFERENCE_DATA is not set")
def test_official_settings_are_the_defaults(tmp_path: Path) -> None:
    official = Path(os.environ["COSYVOICE_REFERENCE_DATA"]) / "official_config"
    shutil.copy(official / "cosyvoice2.yaml", tmp_path)
    (tmp_path / "CosyVoice-BlankEN").mkdir()
    shutil.copy(official / "config.json", tmp_path / "CosyVoice-BlankEN")
    assert read_model_config(tmp_path) == ModelConfig()


def test_upsampled_blocks_come_from_argument_settings_or_tensors(copied: Path) -> None:
    torch.save({f"encoder.up_encoders.{i}.norm_ff.bias": torch.ones(1) for i in range(3)}, copied / "flow.pt")
    assert read_model_config(copied).flow.upsampled_blocks == 3
    assert read_model_config(copied, upsampled_blocks=1).flow.upsampled_blocks == 1
    put(copied, r"num_blocks: 2", "num_blocks: 2\n        num_up_blocks: 2")
    assert read_model_config(copied).flow.upsampled_blocks == 2


def test_at_official_width_missing_blocks_are_not_taken_for_a_smaller_model(copied: Path) -> None:
    torch.save({"encoder.up_encoders.0.norm_ff.bias": torch.ones(1)}, copied / "flow.pt")
    for _ in range(3):
        put(copied, r"(input_size|output_size): 160", r"\1: 512")
    assert read_model_config(copied).flow.upsampled_blocks == 4


def test_upsampled_blocks_are_counted_to_the_last_index() -> None:
    assert count_upsampled_blocks(["encoder.up_encoders.10.norm_ff.bias", "encoder.encoders.20.x", "a"]) == 11
    assert count_upsampled_blocks(["encoder.up_embed.out.0.weight"]) == 0


def test_a_file_without_lm_settings_means_the_official_ones(copied: Path) -> None:
    path = copied / "cosyvoice2.yaml"
    path.write_text(re.sub(r"(?ms)^llm:.*?^flow:", "flow:", path.read_text()))
    assert read_model_config(copied).lm == replace(SMALL.lm, sampling=SamplingConfig())


UNSUPPORTED = {
    "sample_rate": (r"sample_rate: 24000", "sample_rate: 22050", "only 24000 is supported"),
    "hift.sampling_rate": (r"sampling_rate: !ref <sample_rate>", "sampling_rate: 16000", "only 24000 is supported"),
    "token_frame_rate": (r"token_frame_rate: 25", "token_frame_rate: 50", "only 25 is supported"),
    "token_mel_ratio": (r"token_mel_ratio: 2", "token_mel_ratio: 4", "only 2 is supported"),
    "flow.decoder.cfm_params.content.solver": (r"'euler'", "'midpoint'", "only 'euler' is supported"),
    "flow.decoder.cfm_params.content.t_scheduler": (r"'cosine'", "'linear'", "only 'cosine' is supported"),
    "flow.decoder.estimator.channels": (r"channels: \[192\]", "channels: [192, 192]", "only one entry is supported"),
    "flow.decoder.estimator.act_fn": (r"'gelu'", "'snakebeta'", "only 'gelu' is supported"),
    "flow.decoder.estimator.in_channels": (r"in_channels: 320", "in_channels: 240", "only 320 is supported"),
    "flow.decoder.estimator.static_chunk_size": (r"<chunk_size> \* <token_mel_ratio>", "<chunk_size>", "expected 50"),
    "flow.encoder.macaron_style": (r"macaron_style: False", "macaron_style: True", "only False is supported"),
    "flow.encoder.use_cnn_module": (r"use_cnn_module: False", "use_cnn_module: True", "only False is supported"),
    "flow.encoder.input_size": (r"(?s)input_size: 160(.*?)input_size: 160", r"input_size: 160\1input_size: 80", "160"),
    "flow.encoder.num_blocks": (r"num_blocks: 2", "num_blocks: two", "whole number of at least 1"),
    "flow.encoder.attention_heads": (r"attention_heads: 4", "attention_heads: 0", "whole number of at least 1"),
    "flow.encoder.linear_units": (r"linear_units: 480", "linear_units: True", "whole number of at least 1"),
    "flow.encoder.output_size": (r"(?m)^        output_size: 160.*$", "", "is missing"),
    "flow.output_size": (r"output_size: 80", "output_size: 128", "only 80 is supported"),
    "flow.vocab_size": (r"vocab_size: 6561", "vocab_size: -1", "whole number of at least 1"),
    "flow.encoder": (r"(?s)encoder: .*    decoder:", "decoder:", "is missing"),
    "flow": (r"(?s)flow: .*hift:", "hift:", "is missing"),
    "llm.speech_token_size": (r"speech_token_size: 6561", "speech_token_size: 4096", "flow.vocab_size is 6561"),
    "llm.mix_ratio": (r"mix_ratio: \[5, 15\]", "mix_ratio: [5, 15, 2]", "expected two"),
    "llm.sampling": (r"top_p: 0.8", "top_p: 1.5", "top_p must be in"),
    "llm.sampling.tau_r": (r"tau_r: 1.0", "tau_r: .nan", "expected a number"),
    "llm_input_size": (r"llm_input_size: 256", "llm_input_size: 896", "expected 256 .hidden_size in config.json"),
    "hift.upsample_rates": (r"upsample_rates: \[8, 5, 3\]", "upsample_rates: 8", "list of positive whole numbers"),
    "samples per frame": (r"upsample_rates: \[8, 5, 3\]", "upsample_rates: [8, 5, 2]", "320 samples per frame"),
    "hift.resblock_dilation_sizes": (
        r"resblock_dilation_sizes: .*",
        "resblock_dilation_sizes: [[1]]",
        "one list for each",
    ),
    "hift.source_resblock_dilation_sizes": (
        r"source_resblock_dilation_sizes: .*",
        "source_resblock_dilation_sizes: [[1]]",
        "one list for each",
    ),
    "feat_extractor.hop_size": (r"hop_size: 480", "hop_size: 256", "only 480 is supported"),
}


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_unsupported_values_are_refused_by_name(copied: Path, key: str) -> None:
    pattern, replacement, says = UNSUPPORTED[key]
    put(copied, pattern, replacement)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_model_config(copied)
    assert key in str(caught.value)
    assert "cosyvoice2.yaml" in str(caught.value)


@pytest.mark.parametrize(("name", "family"), [("cosyvoice.yaml", "CosyVoice 1"), ("cosyvoice3.yaml", "CosyVoice 3")])
def test_other_generations_are_named(copied: Path, name: str, family: str) -> None:
    (copied / "cosyvoice2.yaml").rename(copied / name)
    with pytest.raises(CheckpointError, match=f"{name}.*{family}.*only CosyVoice 2"):
        read_model_config(copied)


def test_head_dim_is_hidden_over_heads_unless_given(copied: Path) -> None:
    path = put_json(copied)
    assert read_lm_config(path).head_dim == 64
    put_json(copied, head_dim=32)
    assert read_lm_config(path).head_dim == 32
    put_json(copied, head_dim=None)
    assert read_lm_config(path).head_dim == 64


def test_rope_theta_of_newer_config_files(copied: Path) -> None:
    path = put_json(copied, rope_theta=None, rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    assert read_lm_config(path).rope_theta == 5e5


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; only 'qwen2'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters.rope_type"),
        ({"hidden_size": "256"}, "hidden_size is '256'"),
        ({"num_attention_heads": 3}, "num_attention_heads is 3, which does not divide"),
        ({"num_key_value_heads": 3}, "not a multiple of kv_heads"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"rms_norm_eps": None}, "rms_norm_eps is missing"),
    ],
)
def test_unsupported_language_model_settings(copied: Path, values: dict[str, object], says: str) -> None:
    with pytest.raises(CheckpointError, match=says) as caught:
        read_lm_config(put_json(copied, **values))
    assert "config.json" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[1]", "\ufffe", "[" * 100_000, '{"a": NaN'])
def test_broken_language_model_settings(copied: Path, text: str) -> None:
    path = put_json(copied)
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_lm_config(path)


def test_missing_files(copied: Path) -> None:
    (copied / "CosyVoice-BlankEN" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        read_model_config(copied)
    (copied / "cosyvoice2.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"cosyvoice2\.yaml: cannot be read"):
        read_model_config(copied)
