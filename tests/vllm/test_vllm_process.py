"""What vLLM is started with, and with which vLLM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import vllm
from pydantic import ValidationError

from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.errors import EngineError
from deployments.args import LMArgs
from deployments.speech_lm import engine_choice, vllm_process
from deployments.speech_lm.engine_choice import make_engine
from deployments.speech_lm.vllm_args import VllmArgs

pytestmark = pytest.mark.vllm

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def arguments(device: torch.device, **changes: object) -> dict[str, object]:
    args = VllmArgs(**changes)  # type: ignore[arg-type]
    return vllm_process.engine_arguments(Path("model"), device, torch.bfloat16, 32, args)


def test_another_vllm_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    vllm_process.check_installation()
    monkeypatch.setattr(vllm, "__version__", "0.33.1")
    with pytest.raises(EngineError, match=r"0\.33\.1 is installed and 0\.32\.\* is needed"):
        vllm_process.check_installation()


def test_a_missing_entry_point_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_process, "entry_points", lambda group: [])
    with pytest.raises(EngineError, match="make setup"):
        vllm_process.check_installation()


def test_the_processor_is_an_argument_and_risky_options_are_absent() -> None:
    for device in (CPU, GPU):
        chosen = arguments(device)
        assert chosen["logits_processors"] == [vllm_process.PROCESSOR]
        assert chosen["generation_config"] == "vllm"
        assert chosen["skip_tokenizer_init"] is True
        assert chosen["scheduling_policy"] == "priority"
        assert not {"speculative_config", "quantization", "data_parallel_size", "enable_prompt_embeds"} & set(chosen)


def test_a_gpu_gets_graphs_and_its_own_block_size_a_cpu_neither() -> None:
    assert arguments(CPU)["block_size"] == 32
    assert arguments(CPU)["enforce_eager"] is True
    assert "block_size" not in arguments(GPU)
    assert arguments(GPU)["enforce_eager"] is False
    assert arguments(GPU, cudagraph_capture_sizes=(1, 8))["cudagraph_capture_sizes"] == [1, 8]
    assert "cudagraph_capture_sizes" not in arguments(GPU, enforce_eager=True)


def test_memory_is_bounded_twice() -> None:
    """Bytes for the cache, and the share of the card that vLLM demands to be free whatever the bytes."""
    chosen = arguments(GPU, kv_cache_memory_bytes=2**31, gpu_memory_utilization=0.15)
    assert (chosen["kv_cache_memory_bytes"], chosen["gpu_memory_utilization"]) == (2**31, 0.15)


def test_a_step_holds_a_token_of_every_sequence() -> None:
    assert (
        vllm_process.engine_arguments(Path("m"), CPU, torch.float32, 128, VllmArgs(max_batched_tokens=64))[
            "max_num_batched_tokens"
        ]
        == 128
    )


@pytest.mark.parametrize("wrong", [{"max_model_len": 1}, {"gpu_memory_utilization": 1.5}, {"speculative": True}])
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LMArgs.model_validate({"vllm": wrong})


def test_what_is_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "x")
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND")
    vllm_process.set_environment(CPU, 3)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "1"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@pytest.mark.parametrize(
    ("asked", "installed", "made"),
    [("auto", True, "vllm"), ("auto", False, "torch"), ("torch", True, "torch"), ("vllm", True, "vllm")],
)
def test_which_engine_is_made(
    demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, asked: str, installed: bool, made: str
) -> None:
    monkeypatch.setattr(vllm_process, "vllm_installed", lambda: installed)
    monkeypatch.setattr(engine_choice, "_vllm", lambda *_: "vllm")
    monkeypatch.setattr(engine_choice, "_torch", lambda *_: "torch")
    config = read_model_config(demo_checkpoint)
    assert make_engine(demo_checkpoint, config, LMArgs.model_validate({"engine": asked})) == made


async def test_the_shipped_checkpoint_is_spoken_by_either(
    demo_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Converted, started and the same tokens, from the settings alone."""
    from cosyvoice_core.lm.request import TokenRequest
    from cosyvoice_core.lm.vocabulary import SpeechVocabulary
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

    monkeypatch.setenv("COSYVOICE_CACHE", str(tmp_path))
    config = read_model_config(demo_checkpoint)
    spoken = []
    for name in ("torch", "vllm"):
        args = LMArgs.model_validate({"engine": name, "device": "cpu", "vllm": {"kv_cache_memory_bytes": 2**27}})
        engine = make_engine(demo_checkpoint, config, args)
        assert engine.name == name
        try:
            vocabulary = SpeechVocabulary.cosyvoice2(config.lm.text_rows, config.lm.speech_tokens)
            prompt = (vocabulary.sos, *vocabulary.text(range(30, 50)), vocabulary.task)
            request = TokenRequest(prompt, max_tokens=80, min_tokens=10, seed=3)
            spoken.append([id_ async for batch in engine.generate(request) for id_ in batch.ids])
        finally:
            if isinstance(engine, VllmTokenEngine):
                engine.shutdown()
    assert spoken[0] == spoken[1]
    assert len(spoken[0]) >= 10
