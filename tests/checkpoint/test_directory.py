"""A checkpoint directory says what it lacks, all at once, and where to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_core.checkpoint.directory import NEEDED, CheckpointDirectory
from cosyvoice_core.errors import CheckpointError


def test_demo_checkpoint_is_complete(demo_checkpoint: Path) -> None:
    checkpoint = CheckpointDirectory(demo_checkpoint)
    checkpoint.verify()
    files = [
        checkpoint.settings,
        checkpoint.llm,
        checkpoint.flow,
        checkpoint.vocoder,
        checkpoint.speaker_encoder,
        checkpoint.speech_tokenizer,
        checkpoint.lm_config,
        checkpoint.saved_voices,
    ]
    assert all(path is not None and path.is_file() for path in files)
    assert (checkpoint.tokenizer / "vocab.json").is_file()


def test_all_missing_files_are_listed_in_one_error(tmp_path: Path) -> None:
    for name in NEEDED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    checkpoint = CheckpointDirectory(tmp_path)
    checkpoint.verify()
    assert checkpoint.saved_voices is None
    absent = ["llm.pt", "campplus.onnx", "CosyVoice-BlankEN/merges.txt"]
    for name in absent:
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=r"missing: llm\.pt") as caught:
        checkpoint.verify()
    assert all(name in str(caught.value) for name in absent)
    assert "flow.pt" not in str(caught.value)
    assert "FunAudioLLM/CosyVoice2-0.5B" in str(caught.value)


def test_absent_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        CheckpointDirectory(tmp_path / "nowhere").verify()


def test_other_generation(tmp_path: Path) -> None:
    (tmp_path / "cosyvoice3.yaml").touch()
    with pytest.raises(CheckpointError, match="this is CosyVoice 3"):
        CheckpointDirectory(tmp_path).verify()
