"""Vocoders and mel for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.features import prompt_mel
from cosyvoice_core.audio.resample import resample
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.vocoder import Vocoder
from tests.golden_tests.configs import vocoder_config


@pytest.fixture(scope="session")
def tiny(golden_acoustic: Path) -> Vocoder:
    """Of the golden set: random weights, loud, pitched and unpitched in turns, far less smooth than speech."""
    config = vocoder_config(golden_acoustic / "config.json")
    return Vocoder.from_state(read_state(golden_acoustic / "hift.pt"), config, "hift.pt")


@pytest.fixture(scope="session")
def demo(demo_checkpoint: Path) -> Vocoder:
    config = read_model_config(demo_checkpoint).vocoder
    return Vocoder.from_state(read_state(demo_checkpoint / "hift.pt"), config, "hift.pt")


@pytest.fixture(scope="session")
def demo_mel(demo_checkpoint: Path) -> Tensor:
    """Mel (80, T) of recorded speech, about ten seconds by four speakers."""
    pieces = []
    for path in sorted((demo_checkpoint / "prompts").glob("*.wav")):
        wave = decode_audio(path)
        pieces.append(torch.from_numpy(prompt_mel(resample(wave.samples, wave.rate, 24000))).t())
    return torch.cat(pieces, 1)
