"""Stage `text`: the byte-level BPE tokenizer in Qwen2's files, as large as the speech allows.

Bi-stream lays out 5 text tokens before 15 of speech, and the end of speech is illegal before 2 speech tokens per text
token. Both need texts that have clearly more than 3 speech tokens per text token, hence a bound from below on the
number of merges; fewer merges are easier for a small model to spell with. Knows neither speech codes nor models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as BpeTokenizer
from tokenizers import pre_tokenizers, trainers
from tokenizers.models import BPE

from cosyvoice_core.text.tokenizer import Tokenizer, word_splitter
from tools.demo_voice.data.corpus import Corpus

SPEECH_PER_TEXT = 3.0
FOLDER = "CosyVoice-BlankEN"
_BASE_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_ROWS_MULTIPLE = 64


@dataclass(frozen=True, slots=True)
class TextPlan:
    """merges: the numbers that are tried, fewest first; share: of the utterances that must keep the bound."""

    merges: tuple[int, ...] = (200, 300, 400, 600, 800, 1200)
    share: float = 0.995

    def __post_init__(self) -> None:
        if not self.merges or list(self.merges) != sorted(set(self.merges)) or self.merges[0] < 0:
            raise ValueError(f"merges must be ascending, got {self.merges}")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"share must be in (0, 1], got {self.share}")


def train_text(folder: Path, corpus: Corpus, plan: TextPlan) -> dict[str, float]:
    """Write the tokenizer's files. Raises ValueError when no number of merges keeps the bound."""
    texts = [corpus.utterances[number].text for number in corpus.numbers(held_out=False)]
    for merges in plan.merges:
        write_tokenizer(folder / FOLDER, texts, merges)
        tokenizer = Tokenizer.from_directory(folder / FOLDER)
        ratios = [
            corpus.utterances[number].tokens / len(tokenizer.encode(corpus.utterances[number].text))
            for number in corpus.numbers(held_out=False)
        ]
        kept = float(np.mean(np.array(ratios) > SPEECH_PER_TEXT))
        if kept >= plan.share:
            return {
                "text tokens": float(len(tokenizer)),
                "speech tokens per text token": float(np.mean(ratios)),
                "utterances above the bound": kept,
            }
    raise ValueError(
        f"only {kept:.1%} of utterances have more than {SPEECH_PER_TEXT} speech tokens per text token; try more merges"
    )


def write_tokenizer(folder: Path, texts: Sequence[str], merges: int) -> None:
    """vocab.json, merges.txt and tokenizer_config.json with all bytes and so many merges, learnt from `texts`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe = BpeTokenizer(BPE())
    bpe.pre_tokenizer = word_splitter()
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + merges, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(_tokenizer_config(len(model["vocab"])), indent=1), encoding="utf-8"
    )


def text_rows(tokenizer: Tokenizer) -> int:
    """Rows of the text table: every id, rounded up."""
    return -(-len(tokenizer) // _ROWS_MULTIPLE) * _ROWS_MULTIPLE


def _tokenizer_config(first_id: int) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first_id + index): {"content": token, **flags} for index, token in enumerate(_BASE_SPECIALS)
        },
        "additional_special_tokens": list(_BASE_SPECIALS[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": _BASE_SPECIALS[0],
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": _BASE_SPECIALS[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
