"""Ids of the original tokenizer, for every golden text and every vocabulary at hand."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_core.text.tags import ADDED_TOKENS
from cosyvoice_core.text.tokenizer import Tokenizer
from tests.golden_tests.vocabularies import VOCABULARIES, vocabulary_directory

pytestmark = pytest.mark.golden

# Of the released CosyVoice2-0.5B.
RELEASED_LENGTH = 151663
RELEASED_FIRST_SPECIAL = 151643


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: str, golden_lm: Path) -> Tokenizer:
    return Tokenizer.from_directory(vocabulary_directory(vocabulary, golden_lm))


@pytest.fixture(scope="module")
def golden(golden_lm: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((golden_lm / "tokenizer_cases.json").read_text(encoding="utf-8"))
    assert loaded["cases"]
    return loaded


def test_every_case_has_the_original_ids(golden: dict[str, Any], tokenizer: Tokenizer, vocabulary: str) -> None:
    wrong = [case["text"] for case in golden["cases"] if tokenizer.encode(case["text"]) != case[vocabulary]]
    assert wrong == []


def test_specials_stand_where_the_released_vocabulary_has_them(golden: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Between them the ids of another vocabulary say nothing; theirs are known, as is where text gives none."""
    released = {number: RELEASED_FIRST_SPECIAL + place for place, number in enumerate(tokenizer.special_ids.values())}
    for case in golden["cases"]:
        ours = tokenizer.encode(case["text"])
        specials = [number for number in case["real"] if number >= RELEASED_FIRST_SPECIAL]
        assert [released[number] for number in ours if number in released] == specials, case["text"]
        assert bool(ours) == bool(case["real"]), case["text"]
    assert golden["len_real"] == RELEASED_LENGTH
    assert len(tokenizer.special_ids) == RELEASED_LENGTH - RELEASED_FIRST_SPECIAL


def test_length_is_the_original_one(golden: dict[str, Any], tokenizer: Tokenizer, vocabulary: str) -> None:
    assert len(tokenizer) == golden[f"len_{vocabulary}"]


def test_decoding_gives_the_text_without_specials(golden: dict[str, Any], tokenizer: Tokenizer) -> None:
    specials = re.compile("|".join(re.escape(token) for token in sorted(tokenizer.special_ids, key=len, reverse=True)))
    for case in golden["cases"]:
        expected = "".join(unicodedata.normalize("NFC", part) for part in specials.split(case["text"]))
        assert tokenizer.decode(tokenizer.encode(case["text"])) == expected


def test_added_tokens_follow_the_base_specials_in_order(tokenizer: Tokenizer, vocabulary: str) -> None:
    ids = [tokenizer.special_ids[token] for token in ADDED_TOKENS]
    assert ids == list(range(len(tokenizer) - len(ADDED_TOKENS), len(tokenizer)))
    if vocabulary == "real":
        assert len(tokenizer) == RELEASED_LENGTH
        assert list(tokenizer.special_ids)[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        assert list(tokenizer.special_ids.values()) == list(range(RELEASED_FIRST_SPECIAL, RELEASED_LENGTH))
