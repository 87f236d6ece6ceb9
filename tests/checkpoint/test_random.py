"""Random checkpoints are official in format, equal for equal seeds, and make finite, audible noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cosyvoice_core.checkpoint.layout import TEXT_EMBEDDING, TIED_HEAD, flow_layout, lm_layout, vocoder_layout
from cosyvoice_core.checkpoint.official_yaml import official_yaml
from cosyvoice_core.checkpoint.random import TINY as TINY_BY_ITSELF
from cosyvoice_core.checkpoint.random import tiny_config, write_random_checkpoint
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import FlowConfig, LMConfig, ModelConfig, SamplingConfig, VocoderConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.lm.body import Span, SpeechBody
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from cosyvoice_core.vocoder.noise import SourceNoise
from cosyvoice_core.vocoder.vocoder import Vocoder

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"
TINY = tiny_config(DEMO)
WEIGHTS = ("llm.pt", "flow.pt", "hift.pt")

UNUSUAL = ModelConfig(
    lm=LMConfig(
        hidden=48,
        layers=1,
        heads=3,
        kv_heads=1,
        head_dim=20,
        intermediate=40,
        rms_eps=1e-5,
        rope_theta=5e4,
        text_rows=2000,
        max_positions=512,
        text_block=4,
        speech_block=9,
        sampling=SamplingConfig(top_p=0.7, top_k=9, window=0, tau=0.5),
    ),
    flow=FlowConfig(
        speaker_dim=192,
        encoder_dim=24,
        encoder_heads=2,
        encoder_ffn=20,
        encoder_blocks=1,
        upsampled_blocks=3,
        lookahead_tokens=2,
        chunk_tokens=10,
        channels=16,
        estimator_heads=1,
        estimator_head_dim=8,
        blocks_per_stage=2,
        mid_stages=1,
        cfg_rate=0.5,
    ),
    vocoder=VocoderConfig(
        base_channels=16,
        harmonics=4,
        sine_amplitude=0.2,
        noise_sigma=0.001,
        voiced_threshold_hz=5.0,
        upsample_rates=(10, 12),
        upsample_kernels=(20, 24),
        resblock_kernels=(3, 5),
        resblock_dilations=((1, 2), (1, 3)),
        source_resblock_kernels=(7, 9),
        source_resblock_dilations=((1, 2), (1, 2, 4)),
        lrelu_slope=0.2,
        audio_limit=0.9,
        f0_channels=12,
    ),
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("tiny"), TINY, seed=0, front_end=DEMO).path


def test_tiny_is_smaller_than_the_demo_and_reads_its_text_rows(demo_checkpoint: Path) -> None:
    demo, tiny = read_model_config(demo_checkpoint), tiny_config(demo_checkpoint)
    assert replace(tiny, lm=replace(tiny.lm, text_rows=TINY_BY_ITSELF.lm.text_rows)) == TINY_BY_ITSELF
    assert tiny.lm.text_rows == demo.lm.text_rows
    assert tiny.lm.hidden < demo.lm.hidden
    assert tiny.flow.channels < demo.flow.channels
    assert tiny.vocoder.base_channels < demo.vocoder.base_channels


@pytest.mark.parametrize("config", [TINY, UNUSUAL], ids=["tiny", "unusual"])
def test_settings_read_back_and_tensors_fit(tmp_path: Path, demo_checkpoint: Path, config: ModelConfig) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "new", config, seed=1, front_end=demo_checkpoint)
    checkpoint.verify()
    assert read_model_config(checkpoint.path) == config
    layouts = (lm_layout(config.lm), flow_layout(config.flow), vocoder_layout(config.vocoder))
    for name, layout in zip(WEIGHTS, layouts, strict=True):
        state = read_state(checkpoint.path / name)
        assert {key: tuple(tensor.shape) for key, tensor in state.items()} == layout
        assert all(tensor.isfinite().all() for tensor in state.values())


def test_full_size_settings_read_back(tmp_path: Path, demo_checkpoint: Path) -> None:
    (tmp_path / "CosyVoice-BlankEN").mkdir()
    (tmp_path / "cosyvoice2.yaml").write_text(official_yaml(ModelConfig()))
    config_json = json.loads((demo_checkpoint / "CosyVoice-BlankEN" / "config.json").read_text())
    config_json |= {
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "vocab_size": 151936,
    }
    (tmp_path / "CosyVoice-BlankEN" / "config.json").write_text(json.dumps(config_json))
    assert read_model_config(tmp_path) == ModelConfig()
    assert "num_up_blocks" not in official_yaml(ModelConfig())


def test_every_parameter_is_random(tiny: Path) -> None:
    for name in WEIGHTS:
        for key, tensor in read_state(tiny / name).items():
            values = tensor.flatten()
            assert len(np.unique(values.numpy())) > 0.9 * min(len(values), 1000), f"{name} {key}"
            assert not torch.equal(values, torch.ones_like(values)) and values.abs().min() > 0, f"{name} {key}"


def test_the_same_seed_gives_the_same_tensors_and_another_seed_others(tmp_path: Path, tiny: Path) -> None:
    again = write_random_checkpoint(tmp_path / "again", TINY, seed=0, front_end=DEMO).path
    other = write_random_checkpoint(tmp_path / "other", TINY, seed=1, front_end=DEMO).path
    for name in WEIGHTS:
        first, second, third = read_state(tiny / name), read_state(again / name), read_state(other / name)
        assert all(torch.equal(first[key], second[key]) for key in first)
        assert not any(torch.equal(first[key], third[key]) for key in first)


def test_tied_embeddings_share_their_storage(tiny: Path) -> None:
    state = read_state(tiny / "llm.pt")
    assert state[TIED_HEAD].data_ptr() == state[TEXT_EMBEDDING].data_ptr()
    assert (tiny / "llm.pt").stat().st_size < 4.2 * sum(t.numel() for k, t in state.items() if k != TIED_HEAD)


def test_half_precision_checkpoints(tmp_path: Path, demo_checkpoint: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path, TINY, seed=0, front_end=demo_checkpoint, dtype=torch.float16)
    for name in WEIGHTS:
        assert {tensor.dtype for tensor in read_state(checkpoint.path / name).values()} == {torch.float16}


def test_the_front_end_is_copied(tiny: Path, demo_checkpoint: Path) -> None:
    names = ["campplus.onnx", "speech_tokenizer_v2.onnx", "spk2info.pt"]
    names += [f"CosyVoice-BlankEN/{name}" for name in ("vocab.json", "merges.txt", "tokenizer_config.json")]
    for name in names:
        assert (tiny / name).read_bytes() == (demo_checkpoint / name).read_bytes()


def test_a_front_end_with_too_many_text_ids_is_refused(tmp_path: Path, demo_checkpoint: Path) -> None:
    small = replace(TINY, lm=replace(TINY.lm, text_rows=100))
    with pytest.raises(ValueError, match=f"{TINY.lm.text_rows} text rows, the config only 100"):
        write_random_checkpoint(tmp_path, small, seed=0, front_end=demo_checkpoint)


def test_an_incomplete_front_end_is_refused(tmp_path: Path, demo_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing: campplus\.onnx"):
        write_random_checkpoint(tmp_path / "new", TINY, seed=0, front_end=bare_front_end(tmp_path, demo_checkpoint))
    assert not (tmp_path / "new").exists()


def bare_front_end(folder: Path, demo: Path) -> Path:
    """A front end without its speaker encoder."""
    (folder / "bare" / "CosyVoice-BlankEN").mkdir(parents=True)
    for path in (demo / "CosyVoice-BlankEN").iterdir():
        (folder / "bare" / "CosyVoice-BlankEN" / path.name).write_bytes(path.read_bytes())
    (folder / "bare" / "speech_tokenizer_v2.onnx").touch()
    return folder / "bare"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sound_is_finite_and_audible(tmp_path: Path, demo_checkpoint: Path, seed: int) -> None:
    checkpoint = write_random_checkpoint(tmp_path, TINY, seed=seed, front_end=demo_checkpoint)
    flow = FlowModel.from_state(read_state(checkpoint.flow), TINY.flow)
    vocoder = Vocoder.from_state(read_state(checkpoint.vocoder), TINY.vocoder, "hift.pt")
    chance = np.random.default_rng(seed)
    tokens = torch.from_numpy(chance.integers(0, TINY.flow.vocab_size, 40))
    prompt = torch.from_numpy(chance.normal(-5, 1.5, (50, 80)).astype(np.float32))
    speaker = torch.from_numpy(chance.normal(size=192).astype(np.float32))
    mel = flow.mel(tokens, tokens[:25], prompt, speaker, streaming=True, finalize=True)
    assert 0.5 < mel.std() < 4
    f0 = vocoder.f0(mel[None])
    assert f0.min() > 50 and f0.max() < 400 and f0.std() > 1
    speech = vocoder.vocode(mel[None], SourceNoise(seed))
    assert speech.isfinite().all()
    assert 0.005 < speech.square().mean().sqrt() < 0.3
    assert (speech.abs() > 0.9).float().mean() < 0.01


def test_language_model_scores_tell_ids_apart(tiny: Path) -> None:
    vocabulary = SpeechVocabulary.cosyvoice2(TINY.lm.text_rows)
    body = SpeechBody(merge(read_state(tiny / "llm.pt"), TINY.lm, vocabulary), TINY.lm)
    ids = [vocabulary.sos, *vocabulary.text([1, 2, 3]), vocabulary.task, *range(40)]
    logits = body.logits(body.forward(ids, [Span(body.new_cache(), 0, len(ids))]))
    assert logits.isfinite().all()
    assert logits.std(dim=1).min() > 1 and logits.std(dim=1).max() < 6
    assert len(np.unique(logits.argmax(dim=1).numpy())) > 20
