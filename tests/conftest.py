"""Paths that tests read, and that no example of a property has a deadline."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

HERE = Path(__file__).parent

# A machine that does something else for a moment would fail it.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def golden_acoustic() -> Path:
    """Numbers of the original implementation for flow and vocoder."""
    return Path(os.environ.get("COSYVOICE_GOLDEN_ACOUSTIC", HERE / "golden" / "acoustic"))


@pytest.fixture(scope="session")
def golden_lm() -> Path:
    """Numbers of the original implementation for front end and language model."""
    return Path(os.environ.get("COSYVOICE_GOLDEN_LM", HERE / "golden" / "lm_frontend"))


@pytest.fixture(scope="session")
def demo_checkpoint() -> Path:
    """The small trained checkpoint that ships with the project."""
    return HERE.parent / "checkpoints" / "demo"


@pytest.fixture(autouse=True)
def _float32_exact() -> None:
    """Golden tolerances hold for true float32 products only."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
