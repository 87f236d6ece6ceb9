"""The byte-level BPE tokenizer of Qwen2 with CosyVoice2's added tokens. Knows nothing of normalisation.

Source: docs/model.md, "Text tokenizer".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as BpeTokenizer
from tokenizers.models import BPE

from cosyvoice_core.errors import CheckpointError
from cosyvoice_core.text.tags import ADDED_TOKENS

# How Qwen2 cuts a text into words: contractions, words with one leading sign, single digits, signs, blanks.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)


class Tokenizer:
    """Text to ids and back."""

    def __init__(self, bpe: BpeTokenizer, special_ids: Mapping[str, int]) -> None:
        self._bpe = bpe
        self.special_ids: Mapping[str, int] = MappingProxyType(dict(special_ids))

    @classmethod
    def from_directory(cls, path: Path) -> Tokenizer:
        """Tokenizer of a checkpoint's `CosyVoice-BlankEN` directory.

        Base special tokens come from `tokenizer_config.json`, then the added tokens of CosyVoice2 follow in
        their order. Raises CheckpointError that names the file which is missing or unsound.
        """
        vocab = _read_vocab(path / "vocab.json")
        merges = _read_merges(path / "merges.txt", vocab)
        base = _read_base_specials(path / "tokenizer_config.json", len(vocab))
        bpe = BpeTokenizer(BPE(vocab=vocab, merges=merges))
        bpe.normalizer = normalizers.NFC()
        bpe.pre_tokenizer = word_splitter()
        bpe.decoder = decoders.ByteLevel()
        specials = [*base, *(token for token in ADDED_TOKENS if token not in base)]
        bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
        special_ids = {token: len(vocab) + index for index, token in enumerate(specials)}
        displaced = [token for token, number in special_ids.items() if bpe.token_to_id(token) != number]
        if displaced:
            raise CheckpointError(f"{path / 'vocab.json'}: {displaced[0]!r} must not be an ordinary token")
        return cls(bpe, special_ids)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; special tokens count wherever their literal stands. Lone surrogates become U+FFFD."""
        return list(self._bpe.encode(_whole_characters(text)).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special tokens."""
        return self._bpe.decode(list(ids), skip_special_tokens=True)

    def __len__(self) -> int:
        return self._bpe.get_vocab_size(with_added_tokens=True)


def word_splitter() -> pre_tokenizers.Sequence:
    """Cuts a text into the words, as bytes, within which tokens are merged."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _whole_characters(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing; the text tokenizer needs it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as UTF-8 text: {error}") from error


def _read_json_object(path: Path) -> dict[str, object]:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def _read_vocab(path: Path) -> dict[str, int]:
    vocab: dict[str, int] = {}
    for token, number in _read_json_object(path).items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise CheckpointError(f"{path}: id of {token!r} must be a whole number, got {number!r}")
        vocab[token] = number
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise CheckpointError(f"{path}: the ids of {len(vocab)} tokens must be 0..{len(vocab) - 1}, each once")
    # A byte without a token would silently vanish from every text that holds it.
    missing = [letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter not in vocab]
    if missing:
        raise CheckpointError(f"{path}: {len(missing)} of 256 byte tokens are missing, first {min(missing)!r}")
    return vocab


def _read_merges(path: Path, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
    merges: list[tuple[str, str]] = []
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip() or (number == 1 and line.startswith("#version")):
            continue
        left, _, right = line.rstrip("\r").partition(" ")
        if not left or not right or " " in right:
            raise CheckpointError(f"{path}: line {number} must hold two tokens, got {line!r}")
        absent = next((token for token in (left, right, left + right) if token not in vocab), None)
        if absent is not None:
            raise CheckpointError(f"{path}: line {number} merges {left!r} and {right!r}, but {absent!r} is no token")
        merges.append((left, right))
    return merges


def _read_base_specials(path: Path, first_id: int) -> list[str]:
    entries = _read_json_object(path).get("added_tokens_decoder", {})
    if not isinstance(entries, dict):
        raise CheckpointError(f"{path}: added_tokens_decoder must be an object")
    by_id: dict[int, str] = {}
    for key, entry in entries.items():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not key.isdecimal() or not isinstance(content, str) or not content:
            raise CheckpointError(f"{path}: added_tokens_decoder[{key!r}] must be an id with a content")
        by_id[int(key)] = content
    expected = list(range(first_id, first_id + len(by_id)))
    if sorted(by_id) != expected:
        raise CheckpointError(f"{path}: added tokens have ids {sorted(by_id)}, expected {expected} (after vocab.json)")
    if len(set(by_id.values())) != len(by_id):
        raise CheckpointError(f"{path}: an added token is listed twice")
    return [by_id[number] for number in expected]
