"""Variants of a recording: new to any cache by content, the same to any ear."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import pytest

from loadtest.errors import ScenarioError
from loadtest.prompt_audio import PromptAudio


def samples(wav: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(wav)) as sound:
        return np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(int)


def test_variants_differ_in_the_lowest_bit_only(demo_checkpoint: Path) -> None:
    file = demo_checkpoint / "prompts" / "demo_deep.wav"
    prompt = PromptAudio.from_file(file)
    variants = {number: prompt.variant(number) for number in (0, 1, 2, 70_000)}
    assert variants[0] == file.read_bytes()
    assert len(set(variants.values())) == 4
    for wav in variants.values():
        assert np.abs(samples(wav) - samples(variants[0])).max() <= 1
    assert prompt.variant(2) == variants[2]
    assert prompt.transcript == file.with_suffix(".txt").read_text().strip()


def test_two_runs_have_no_variant_in_common(demo_checkpoint: Path) -> None:
    wav = (demo_checkpoint / "prompts" / "demo_deep.wav").read_bytes()
    assert PromptAudio(wav, "", run=1).variant(5) != PromptAudio(wav, "", run=2).variant(5)


@pytest.mark.parametrize("wav", [b"", b"ID3 not a wav at all", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0"])
def test_other_audio_is_refused(wav: bytes) -> None:
    with pytest.raises(ScenarioError, match="WAV of 16-bit PCM"):
        PromptAudio(wav, "")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"gone\.wav"):
        PromptAudio.from_file(tmp_path / "gone.wav")
