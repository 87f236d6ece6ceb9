"""The folder an engine loads: right, made once, whole whatever happens, remembered without hashing again."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cosyvoice_core.checkpoint.settings import read_lm_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.config import LMConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.lm.merge import merge
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.speech_lm import conversion
from deployments.speech_lm.conversion import ConvertedModels, default_cache

pytestmark = pytest.mark.vllm


@pytest.fixture
def config(golden_lm: Path) -> LMConfig:
    return read_lm_config(golden_lm / "ckpt" / "CosyVoice-BlankEN" / "config.json")


@pytest.fixture
def source(golden_lm: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "llm.pt"
    copy.write_bytes((golden_lm / "ckpt" / "llm.pt").read_bytes())
    return copy


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name.startswith("partial") or path.suffix == ".partial")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_holds_the_merged_tensors(source: Path, config: LMConfig, tmp_path: Path, dtype: torch.dtype) -> None:
    folder = ConvertedModels(tmp_path / "cache").model(source, config, dtype)
    vocabulary = SpeechVocabulary.cosyvoice2(config.text_rows, config.speech_tokens)
    expected = merge(read_state(source), config, vocabulary, dtype=dtype)
    written = load_file(folder / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], expected[key]) for key in expected)
    settings = json.loads((folder / "config.json").read_text())
    assert settings["vocab_size"] == vocabulary.head_rows
    assert settings["input_vocab_size"] == vocabulary.input_rows == len(written["model.embed_tokens.weight"])
    assert settings["dtype"] == str(dtype).removeprefix("torch.")


def test_is_made_once_and_hashed_once(
    source: Path, config: LMConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = ConvertedModels(tmp_path / "cache")
    folder = models.model(source, config)
    made = (folder / "model.safetensors").stat().st_mtime_ns
    hashed: list[Path] = []
    real = conversion._sha256
    monkeypatch.setattr(conversion, "_sha256", lambda path: hashed.append(path) or real(path))
    assert models.model(source, config) == folder
    assert hashed == []
    source.touch()
    assert models.model(source, config) == folder
    assert hashed == [source.resolve()]
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_another_file_config_or_dtype_is_another_folder(source: Path, config: LMConfig, tmp_path: Path) -> None:
    models = ConvertedModels(tmp_path / "cache")
    first = models.model(source, config)
    other_type = models.model(source, config, torch.bfloat16)
    state = read_state(source)
    state["llm_decoder.bias"] = state["llm_decoder.bias"] + 1
    torch.save(state, source)
    changed = models.model(source, config)
    assert len({first, other_type, changed}) == 3
    bias = {
        path: load_file(path / "model.safetensors")["lm_head.bias"].float().mean().item() for path in (first, changed)
    }
    assert bias[changed] == pytest.approx(bias[first] + 1, abs=1e-5)


def test_a_file_that_does_not_fit_leaves_nothing(source: Path, config: LMConfig, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    state = read_state(source)
    del state["llm_decoder.bias"]
    torch.save(state, source)
    with pytest.raises(CheckpointError, match=r"llm_decoder\.bias"):
        ConvertedModels(root).model(source, config)
    with pytest.raises(CheckpointError, match="missing"):
        ConvertedModels(root).model(tmp_path / "none.pt", config)
    assert leftovers(root) == []
    assert [path for path in root.iterdir() if path.is_dir()] == []


def _convert(source: Path, config: LMConfig, root: Path, results: Any) -> None:
    results.put(str(ConvertedModels(root).model(source, config)))


def _convert_slowly(source: Path, config: LMConfig, root: Path, writing: Any) -> None:
    """Stops for ever when half of the folder is written."""
    real = conversion.save_file

    def save_and_hang(tensors: Any, path: str, metadata: Any) -> None:
        real(tensors, path, metadata)
        with Path(path).open("r+b") as file:
            file.truncate(1000)
        writing.set()
        time.sleep(600)

    conversion.save_file = save_and_hang
    ConvertedModels(root).model(source, config)


def test_two_processes_at_once_make_one_folder(source: Path, config: LMConfig, tmp_path: Path) -> None:
    root = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_convert, args=(source, config, root, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join(30)
    assert len(found) == 1
    assert [path for path in root.iterdir() if path.is_dir()] == [Path(found.pop())]
    assert leftovers(root) == []


def test_a_crash_in_the_middle_is_made_good(source: Path, config: LMConfig, tmp_path: Path) -> None:
    """The dead process's lock is free, its half-written folder is taken for nothing and removed."""
    root = tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    writing = context.Event()
    process = context.Process(target=_convert_slowly, args=(source, config, root, writing))
    process.start()
    assert writing.wait(120)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert leftovers(root) != []
    folder = ConvertedModels(root).model(source, config)
    assert leftovers(root) == []
    assert "lm_head.bias" in load_file(folder / "model.safetensors")


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COSYVOICE_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("COSYVOICE_CACHE")
    assert default_cache() == Path.home() / ".cache" / "cosyvoice-serve"
