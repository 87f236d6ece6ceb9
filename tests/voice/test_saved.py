"""Saved voices: three flavours in, one out, and every malformed entry named."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.voice.saved import load_saved_voices, save_voices

VECTOR = torch.arange(192, dtype=torch.float32)[None]


def write(path: Path, **voices: object) -> Path:
    torch.save(voices, path)
    return path


def original(tokens: int = 10, frames: int = 20, **changes: object) -> dict[str, object]:
    """An entry as the original saves it."""
    ids = torch.arange(tokens, dtype=torch.int32)[None]
    entry = {
        "prompt_text": torch.tensor([[7, 8, 9]], dtype=torch.int32),
        "prompt_text_len": torch.tensor([3], dtype=torch.int32),
        "llm_prompt_speech_token": ids,
        "flow_prompt_speech_token": ids,
        "prompt_speech_feat": torch.randn(1, frames, 80),
        "llm_embedding": VECTOR,
        "flow_embedding": VECTOR + 1,
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not None}


def with_text(tokens: int = 10, frames: int = 20, **changes: object) -> dict[str, object]:
    """An entry of the flavour that keeps the transcript as a string."""
    entry = {
        "name": "Someone",
        "spk_id": "001",
        "prompt_text": "hello",
        "prompt_text_token": torch.tensor([[4, 5]], dtype=torch.int32),
        "speech_feat": torch.randn(1, frames, 80),
        "speech_token": torch.arange(tokens, dtype=torch.int32)[None],
        "embedding": VECTOR,
        **changes,
    }
    return {key: value for key, value in entry.items() if value is not None}


def test_three_flavours_in_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "spk2info.pt", vector={"embedding": VECTOR}, saved=original(), text=with_text())
    voices = load_saved_voices(path)
    assert list(voices) == ["vector", "saved", "text"]
    assert len(voices["vector"].speech_tokens) == len(voices["vector"].mel) == 0
    np.testing.assert_array_equal(voices["vector"].speaker, VECTOR[0])
    np.testing.assert_array_equal(voices["saved"].speaker, VECTOR[0] + 1)
    assert voices["saved"].transcript == ""
    assert voices["saved"].transcript_ids.tolist() == [7, 8, 9]
    assert voices["text"].transcript == "hello"
    assert voices["text"].transcript_ids.tolist() == [4, 5]
    for name in ("saved", "text"):
        assert voices[name].speech_tokens.tolist() == list(range(10))
        assert voices[name].mel.shape == (20, 80)


def test_what_version_1_stored_beside_the_vector_is_passed_over(tmp_path: Path) -> None:
    entry = {"embedding": VECTOR, "speech_feat": torch.randn(1, 40, 80), "speech_token": torch.ones(1, 11).int()}
    (voice,) = load_saved_voices(write(tmp_path / "v1.pt", voice=entry)).values()
    assert len(voice.speech_tokens) == 0


@pytest.mark.parametrize(("tokens", "frames", "kept"), [(10, 25, 10), (12, 20, 10), (63, 125, 62)])
@pytest.mark.parametrize("entry", [original, with_text])
def test_entries_are_aligned(tmp_path: Path, entry: Any, tokens: int, frames: int, kept: int) -> None:
    (voice,) = load_saved_voices(write(tmp_path / "voices.pt", voice=entry(tokens, frames))).values()
    assert (len(voice.speech_tokens), len(voice.mel)) == (kept, 2 * kept)


def test_a_transcript_without_ids_is_tokenised(tmp_path: Path) -> None:
    path = write(tmp_path / "voices.pt", voice=with_text(prompt_text_token=None))
    (voice,) = load_saved_voices(path, lambda text: [len(text), 1]).values()
    assert voice.transcript_ids.tolist() == [5, 1]
    with pytest.raises(CheckpointError, match=r"'voice': prompt_text_token: .*tokenizer"):
        load_saved_voices(path)


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    entry = original(prompt_speech_feat=torch.randn(1, 20, 80).half(), flow_embedding=VECTOR.half())
    (voice,) = load_saved_voices(write(tmp_path / "voices.pt", voice=entry)).values()
    assert voice.mel.dtype == voice.speaker.dtype == np.float32


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({}, "embedding: expected a tensor, found nothing"),
        (torch.zeros(3), "is a Tensor, expected a dict"),
        ({"embedding": "text"}, "embedding: expected a tensor, found str"),
        ({"embedding": torch.zeros(1, 64)}, "embedding: expected 192 values, found 64"),
        ({"embedding": torch.full((1, 192), float("nan"))}, "embedding: expected finite"),
        ({"embedding": torch.zeros(1, 192).int()}, "embedding: expected real numbers"),
        (original(prompt_text=None), "prompt_text: expected a tensor, found nothing"),
        (original(prompt_speech_feat=None), "prompt_speech_feat: expected a tensor, found nothing"),
        (original(prompt_speech_feat=torch.zeros(1, 20, 64)), r"prompt_speech_feat: expected \[1, frames, 80\]"),
        (original(prompt_speech_feat=torch.zeros(2, 20, 80)), r"prompt_speech_feat: expected \[1, frames, 80\]"),
        (original(prompt_speech_feat=torch.zeros(1, 1, 80)), "at least one token"),
        (original(flow_prompt_speech_token=torch.zeros(1, 10)), "flow_prompt_speech_token: expected whole numbers"),
        (original(flow_prompt_speech_token=torch.full((1, 10), -1)), "not negative, found -1"),
        (original(flow_prompt_speech_token=torch.full((1, 10), 6561)), "speech tokens below 6561, found 6561"),
        (original(flow_prompt_speech_token=torch.zeros(2, 5).int()), r"expected \[1, ids\], found \[2, 5\]"),
        (with_text(speech_token=None), "speech_token: expected a tensor"),
        (with_text(prompt_text=torch.zeros(1, 3).int()), "prompt_text: expected a string"),
    ],
)
def test_malformed_entries_are_named_with_file_and_expectation(tmp_path: Path, entry: object, complaint: str) -> None:
    path = write(tmp_path / "spk2info.pt", good={"embedding": VECTOR}, odd=entry)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        load_saved_voices(path)
    assert str(path) in str(caught.value)
    assert "'odd'" in str(caught.value)


def test_files_that_hold_no_voices(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing"):
        load_saved_voices(tmp_path / "absent.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "junk.pt"))):
        load_saved_voices(tmp_path / "junk.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="expected a dict of voices, found list"):
        load_saved_voices(tmp_path / "list.pt")
    torch.save({"path": Path("/")}, tmp_path / "code.pt")
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "code.pt"))):
        load_saved_voices(tmp_path / "code.pt")


def test_sizes_of_another_model_are_taken_from_its_config(tmp_path: Path) -> None:
    path = write(tmp_path / "voices.pt", voice={"embedding": torch.zeros(1, 64)})
    (voice,) = load_saved_voices(path, flow=FlowConfig(speaker_dim=64)).values()
    assert voice.speaker.shape == (64,)


@settings(max_examples=25)
@given(tokens=st.integers(0, 30), ids=st.lists(st.integers(0, 151662), max_size=9), seed=st.integers(0, 99))
def test_saved_voices_read_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, tokens: int, ids: list[int], seed: int
) -> None:
    random = np.random.default_rng(seed)
    voice = VoicePrompt(
        speaker=random.standard_normal(192).astype(np.float32),
        speech_tokens=random.integers(0, 6561, tokens).astype(np.int32),
        mel=random.standard_normal((2 * tokens, 80)).astype(np.float32),
        transcript="lost in this format",
        transcript_ids=np.array(ids if tokens else [], np.int32),
    )
    path = tmp_path_factory.mktemp("saved") / "spk2info.pt"
    save_voices(path, {"a": voice, "b": VoicePrompt(voice.speaker)})
    read = load_saved_voices(path)
    assert list(read) == ["a", "b"]
    for name in ("speaker", "speech_tokens", "mel", "transcript_ids"):
        np.testing.assert_array_equal(getattr(read["a"], name), getattr(voice, name))
        assert getattr(read["a"], name).dtype == getattr(voice, name).dtype
    np.testing.assert_array_equal(read["b"].speaker, voice.speaker)
    assert [file.name for file in path.parent.iterdir()] == ["spk2info.pt"]


def test_what_is_written_has_the_fields_of_the_original(tmp_path: Path) -> None:
    voice = VoicePrompt(
        np.ones(192, np.float32),
        np.arange(4, dtype=np.int32),
        np.zeros((8, 80), np.float32),
        "",
        np.array([1], np.int32),
    )
    save_voices(tmp_path / "spk2info.pt", {"voice": voice})
    entry = torch.load(tmp_path / "spk2info.pt", weights_only=True)["voice"]
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in entry.items()}
    length = ((1,), torch.int32)
    assert shapes == {
        "prompt_text": ((1, 1), torch.int32),
        "prompt_text_len": length,
        "llm_prompt_speech_token": ((1, 4), torch.int32),
        "llm_prompt_speech_token_len": length,
        "flow_prompt_speech_token": ((1, 4), torch.int32),
        "flow_prompt_speech_token_len": length,
        "prompt_speech_feat": ((1, 8, 80), torch.float32),
        "prompt_speech_feat_len": length,
        "llm_embedding": ((1, 192), torch.float32),
        "flow_embedding": ((1, 192), torch.float32),
        "embedding": ((1, 192), torch.float32),
    }
    assert entry["prompt_speech_feat_len"].item() == 8


def test_the_demo_voices_have_prompts(demo_checkpoint: Path) -> None:
    voices = load_saved_voices(demo_checkpoint / "spk2info.pt")
    assert voices
    assert all(len(voice.speech_tokens) and len(voice.transcript_ids) for voice in voices.values())


@pytest.mark.skipif(
    "COSYVOICE_REFERENCE_DATA" not in os.environ,
    reason="COSYVOICE_REFERENCE_DATA does not name a folder with the released saved-voice file",
)
def test_the_published_saved_voices_load() -> None:
    from cosyvoice_core.text.tokenizer import Tokenizer

    directory = Path(os.environ["COSYVOICE_REFERENCE_DATA"]) / "official_config"
    tokenizer = Tokenizer.from_directory(directory)
    voices = load_saved_voices(directory / "spk2info.pt", tokenizer.encode)
    assert voices
    for voice in voices.values():
        assert tokenizer.encode(voice.transcript) == voice.transcript_ids.tolist()
        assert len(voice.mel) == 2 * len(voice.speech_tokens) > 0
