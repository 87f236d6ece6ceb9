"""The batched speech tokenizer: items do not hear each other, and files that are none are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.voice.s3_tokenizer import S3Config, S3Tokenizer, fsq_ids, token_lengths

SMALL = S3Config(mel_bins=16, width=32, blocks=2, hidden=48, memory_taps=5, code_digits=4, head_dim=8)


@pytest.fixture(scope="module")
def tokenizer() -> S3Tokenizer:
    torch.manual_seed(0)
    return S3Tokenizer(SMALL).eval()


@settings(max_examples=40)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_a_batch_equals_its_items_alone(tokenizer: S3Tokenizer, lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(len(lengths), 16, max(lengths) + 3, generator=generator) * 3
    together = tokenizer.hidden(batch, torch.tensor(lengths))
    ids, counts = tokenizer(batch, torch.tensor(lengths))
    assert counts.tolist() == [-(-length // 4) for length in lengths]
    for item, length in enumerate(lengths):
        alone = tokenizer.hidden(batch[item : item + 1, :, :length], torch.tensor([length]))
        count = int(counts[item])
        assert alone.shape[1] == count
        torch.testing.assert_close(together[item, :count], alone[0], rtol=0, atol=1e-4)
    assert 0 <= int(ids.min()) <= int(ids.max()) < 81


def test_a_token_per_four_frames_rounding_up() -> None:
    frames = torch.arange(1, 200)
    assert token_lengths(frames).tolist() == [-(-n // 4) for n in range(1, 200)]


def test_codes_cover_the_vocabulary_and_half_rounds_to_even() -> None:
    values = torch.tensor([-20.0, 0.0, 20.0])
    corners = torch.cartesian_prod(*[values] * 4)
    assert sorted(fsq_ids(corners).tolist()) == list(range(81))
    assert fsq_ids(torch.tensor([20.0, -20.0, -20.0, -20.0])).item() == 2


def test_dimensions_come_from_the_file(tokenizer: S3Tokenizer, tmp_path: Path) -> None:
    wide = S3Config(mel_bins=16, width=128, blocks=3, hidden=40, memory_taps=7, code_digits=5)
    torch.manual_seed(1)
    model = S3Tokenizer(wide).eval()
    torch.save(model.state_dict(), tmp_path / "s3.pt")
    read = S3Tokenizer.from_file(tmp_path / "s3.pt")
    log_mel, frames = torch.randn(2, 16, 50), torch.tensor([50, 31])
    assert torch.equal(read(log_mel, frames)[0], model(log_mel, frames)[0])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("encoder.conv1.weight", "no tensor encoder.conv1.weight"),
        ("encoder.blocks.1.attn.query.bias", r"missing: encoder\.blocks\.1\.attn\.query\.bias"),
        ("quantizer._codebook.project_down.weight", "project_down.weight"),
    ],
)
def test_missing_tensors_are_named(tmp_path: Path, change: str, complaint: str) -> None:
    state = S3Tokenizer(S3Config(mel_bins=16, width=64, blocks=2, hidden=48, memory_taps=5)).state_dict()
    del state[change]
    torch.save(state, tmp_path / "s3.pt")
    with pytest.raises(CheckpointError, match=complaint):
        S3Tokenizer.from_file(tmp_path / "s3.pt")


def test_extra_tensors_and_other_widths_are_named(tmp_path: Path) -> None:
    state = S3Tokenizer(S3Config(mel_bins=16, width=64, blocks=1, hidden=48, memory_taps=5)).state_dict()
    torch.save({**state, "encoder.odd": torch.zeros(1)}, tmp_path / "extra.pt")
    with pytest.raises(CheckpointError, match=r"unexpected: encoder\.odd"):
        S3Tokenizer.from_file(tmp_path / "extra.pt")
    torch.save({**state, "encoder.conv1.weight": torch.zeros(50, 16, 3)}, tmp_path / "width.pt")
    with pytest.raises(CheckpointError, match="width 50 is not a multiple"):
        S3Tokenizer.from_file(tmp_path / "width.pt")
    with pytest.raises(CheckpointError, match="missing"):
        S3Tokenizer.from_file(tmp_path / "absent.pt")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        S3Config(memory_taps=4)
