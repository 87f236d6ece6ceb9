"""These tests run vLLM: the folder is collected where it can be imported, and then nothing in it is skipped.

An engine takes half a minute to start, so the tests of a module share one, and with it an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cosyvoice_core.lm.engine import TorchEngine
from deployments.speech_lm.conversion import ConvertedModels
from deployments.speech_lm.vllm_args import VllmArgs
from deployments.speech_lm.vllm_process import set_environment
from deployments.speech_lm.widening import widening_factor
from tests.golden_tests.lm_models import read_config

if TYPE_CHECKING:
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]


@pytest.fixture(scope="session")
def oracle(golden_lm: Path) -> TorchEngine:
    """The torch engine on the golden set's tiny checkpoint; tests leave it without sequences."""
    config = read_config(golden_lm)
    return TorchEngine.from_directory(golden_lm / "ckpt", config)


@pytest.fixture(scope="session")
def model_folder(golden_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint in float32 as vLLM loads it."""
    config = read_config(golden_lm)
    models, source = ConvertedModels(tmp_path_factory.mktemp("models")), golden_lm / "ckpt" / "llm.pt"
    return models.model(source, config, torch.float32, widening_factor(config))


@pytest.fixture(scope="session")
def start_engine(golden_lm: Path, model_folder: Path) -> Callable[..., VllmTokenEngine]:
    """Starts engines on the tiny checkpoint; whoever starts one also shuts it down."""
    cpu = torch.device("cpu")
    set_environment(cpu, 1)
    from deployments.speech_lm.vllm_engine import VllmTokenEngine

    config = read_config(golden_lm)

    def start(args: VllmArgs, max_sequences: int = 16, stat_loggers: list[Any] | None = None) -> VllmTokenEngine:
        return VllmTokenEngine(
            model_folder,
            config,
            device=cpu,
            dtype=torch.float32,
            max_sequences=max_sequences,
            args=args,
            stat_loggers=stat_loggers,
        )

    return start


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., VllmTokenEngine]) -> Iterator[VllmTokenEngine]:
    """One engine for all tests of a module."""
    running = start_engine(VllmArgs(max_model_len=1024, kv_cache_memory_bytes=2**27, idle_release_s=0.5))
    yield running
    running.shutdown()
