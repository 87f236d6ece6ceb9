"""Tokenizers and front ends that several text tests use."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def demo_tokenizer(demo_checkpoint: Path) -> Tokenizer:
    """About two characters per token: whatever fits under it fits under the released one."""
    return Tokenizer.from_directory(demo_checkpoint / "CosyVoice-BlankEN")


@pytest.fixture(scope="session")
def front_end(demo_tokenizer: Tokenizer) -> TextFrontEnd:
    return TextFrontEnd(demo_tokenizer)
