"""Unsound tokenizer files are named; any string can be encoded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.text.tags import ADDED_TOKENS
from cosyvoice_core.text.tokenizer import Tokenizer

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


@pytest.fixture
def directory(demo_checkpoint: Path, tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(demo_checkpoint / "CosyVoice-BlankEN" / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: missing"):
        Tokenizer.from_directory(directory)


@pytest.mark.parametrize("name", FILES)
def test_binary_file_is_named(directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.from_directory(directory)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a": ' + "9" * 10_000 + "}", "[]", "null"])
@pytest.mark.parametrize("name", ["vocab.json", "tokenizer_config.json"])
def test_json_that_no_tokenizer_has_is_named(directory: Path, name: str, content: str) -> None:
    (directory / name).write_text(content)
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.from_directory(directory)


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda vocab: vocab.pop("A"), "must be 0"),
        (lambda vocab: vocab.update(A="7"), "whole number"),
        (lambda vocab: vocab.update(A=vocab["B"]), "must be 0"),
        (lambda vocab: vocab.update(new=vocab.pop("A")), "byte tokens are missing, first 'A'"),
        (lambda vocab: vocab.update({"[laughter]": len(vocab)}), "must be an ordinary token|expected|must not be"),
    ],
)
def test_unsound_vocabulary_is_refused(
    directory: Path, change: Callable[[dict[str, object]], object], problem: str
) -> None:
    rewrite(directory / "vocab.json", change)
    with pytest.raises(CheckpointError, match=problem):
        Tokenizer.from_directory(directory)


@pytest.mark.parametrize("line", ["a b c", "alone", "zzz a"])
def test_unsound_merge_is_refused_with_its_line(directory: Path, line: str) -> None:
    with (directory / "merges.txt").open("a", encoding="utf-8") as merges:
        merges.write(f"\n{line}\n")
    with pytest.raises(CheckpointError, match=r"merges\.txt: line \d+"):
        Tokenizer.from_directory(directory)


def test_special_ids_must_follow_the_vocabulary(directory: Path) -> None:
    def shift(config: dict[str, object]) -> None:
        entries = config["added_tokens_decoder"]
        assert isinstance(entries, dict)
        entries["9999"] = entries.pop(min(entries))

    rewrite(directory / "tokenizer_config.json", shift)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: added tokens have ids"):
        Tokenizer.from_directory(directory)


def test_added_tokens_are_single_ids_anywhere(demo_tokenizer: Tokenizer) -> None:
    for token in ADDED_TOKENS:
        around = demo_tokenizer.encode(f"a{token}b")
        assert around.count(demo_tokenizer.special_ids[token]) == 1
        assert demo_tokenizer.decode(around) == "ab"


def test_surrogates_are_joined_or_replaced(demo_tokenizer: Tokenizer) -> None:
    assert demo_tokenizer.encode("\ud83d\ude00") == demo_tokenizer.encode("😀")
    assert demo_tokenizer.decode(demo_tokenizer.encode("a\ud800b")) == "a\ufffdb"
