"""A toy run through all stages, made once; skipped where espeak-ng is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tools.demo_voice.data.corpus import Corpus
from tools.demo_voice.data.espeak import Espeak
from tools.demo_voice.run import Run
from tools.demo_voice.scale import SCALES
from tools.setup_espeak import PACKAGES, installed


@pytest.fixture(scope="session")
def espeak() -> Espeak:
    """The teacher. One for all tests: the library holds one voice."""
    if not installed():
        pytest.skip(f"needs {' and '.join(PACKAGES)} (make espeak)")
    return Espeak()


@pytest.fixture(scope="session")
def run(espeak: Espeak, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A toy run whose data is there."""
    toy = Run(tmp_path_factory.mktemp("demo-voice"), SCALES["toy"], seed=3)
    toy.stage("data")
    return toy


@pytest.fixture(scope="session")
def corpus(run: Run) -> Corpus:
    return run.corpus


@pytest.fixture(scope="session")
def coded(run: Run) -> Run:
    """The same with tokenizers and speaker vectors."""
    for stage in ("tokenizer", "speaker", "text"):
        run.stage(stage)
    return run


@pytest.fixture(scope="session")
def packed(coded: Run) -> Path:
    """The checkpoint of the toy run."""
    threads = torch.get_num_threads()
    for stage in ("lm", "flow", "vocoder", "pack"):
        coded.stage(stage)
    torch.set_num_threads(threads)
    return coded.checkpoint
