"""The reference profile against the original front end, text by text; and what the robust one makes of the same.

`wetext010` is what our grammar package computes, and must match exactly. `ref` came from the package the original
pins: it leaves blanks behind an English text with digits. `no_tn` is the original without the package.
`wetext018` used grammars of a later release that cannot be computed here: of it, the splitting of its normalised
texts is checked, and the normalised texts of the Chinese branch that hold no digit, which no grammar touches.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.number_reader import GrammarReader, ReadNumbers
from cosyvoice_core.text.reference import ReferenceFrontEnd
from cosyvoice_core.text.script import Language, reference_branch
from cosyvoice_core.text.tokenizer import Tokenizer
from tests.golden_tests.vocabularies import VOCABULARIES, vocabulary_directory
from tests.text.invariants import assert_robust_segments

pytestmark = pytest.mark.golden

Case = dict[str, Any]


@pytest.fixture(scope="module")
def cases(golden_lm: Path) -> list[Case]:
    loaded: list[Case] = json.loads((golden_lm / "text_cases.json").read_text(encoding="utf-8"))["cases"]
    assert loaded
    return loaded


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: str, golden_lm: Path) -> Tokenizer:
    return Tokenizer.from_directory(vocabulary_directory(vocabulary, golden_lm))


def is_off(text: str) -> bool:
    return text == "" or ("<|" in text and "|>" in text)


def computed(cases: list[Case], variant: str, vocabulary: str) -> Iterator[tuple[str, str, list[str]]]:
    """Text, normalised text and segments of the cases in which the original did not raise."""
    for case in cases:
        normalised, segments = case[variant]["normalized"], case[variant][f"segments_{vocabulary}"]
        if not isinstance(normalised, dict) and not isinstance(segments, dict):
            yield case["text"], normalised, segments


def original_front_end(tokenizer: Tokenizer, read_numbers: ReadNumbers) -> ReferenceFrontEnd:
    return ReferenceFrontEnd(lambda text: len(tokenizer.encode(text)), read_numbers)


def test_reference_profile_is_exact(cases: list[Case], tokenizer: Tokenizer, vocabulary: str) -> None:
    front_end = TextFrontEnd(tokenizer, Profile.REFERENCE)
    for text, normalised, segments in computed(cases, "wetext010", vocabulary):
        assert front_end.normalise(text) == normalised
        assert list(front_end.segments(text)) == segments


def test_without_a_grammar_it_is_exact(cases: list[Case], tokenizer: Tokenizer, vocabulary: str) -> None:
    front_end = original_front_end(tokenizer, lambda text, _language: text)
    for text, normalised, segments in computed(cases, "no_tn", vocabulary):
        assert front_end.normalise(text) == normalised
        assert front_end.segments(text) == segments


def test_pinned_grammar_differs_by_trailing_blanks(cases: list[Case], tokenizer: Tokenizer, vocabulary: str) -> None:
    front_end = original_front_end(tokenizer, GrammarReader())
    for text, normalised, segments in computed(cases, "ref", vocabulary):
        ours = front_end.normalise(text)
        if normalised != ours:
            assert reference_branch(text) is Language.ENGLISH and re.search(r"\d", text)
            assert normalised.rstrip(" ") == ours
        if not is_off(text):
            assert front_end.split(normalised, reference_branch(text)) == segments


def test_later_grammar_where_it_can_be_checked(cases: list[Case], tokenizer: Tokenizer, vocabulary: str) -> None:
    front_end = original_front_end(tokenizer, GrammarReader())
    for text, normalised, segments in computed(cases, "wetext018", vocabulary):
        if is_off(text):
            assert (front_end.normalise(text), front_end.segments(text)) == (normalised, segments)
            continue
        assert front_end.split(normalised, reference_branch(text)) == segments
        if reference_branch(text) is Language.CHINESE and not re.search(r"\d", text):
            assert front_end.normalise(text) == normalised


def test_front_end_off_hands_texts_through(cases: list[Case], tokenizer: Tokenizer) -> None:
    front_end = TextFrontEnd(tokenizer, Profile.OFF)
    for case in cases:
        assert front_end.normalise(case["text"]) == case["frontend_off"]["normalized"]
        assert list(front_end.segments(case["text"])) == case["frontend_off"]["segments"]


def test_where_the_original_raises_the_reference_profile_does_not(
    cases: list[Case], tokenizer: Tokenizer, vocabulary: str
) -> None:
    front_end = TextFrontEnd(tokenizer, Profile.REFERENCE)
    raising = [
        case["text"]
        for case in cases
        for variant in ("ref", "wetext010", "wetext018", "no_tn")
        if isinstance(case[variant][f"segments_{vocabulary}"], dict)
    ]
    for text in raising:
        assert front_end.normalise(text).strip() or not text.strip()
        segments = list(front_end.segments(text))
        assert all(segment.strip() for segment in segments)
        assert bool(segments) == any(unicodedata.category(letter)[0] not in "PS" for letter in text.strip())


def test_robust_profile_reads_every_golden_text(cases: list[Case], tokenizer: Tokenizer) -> None:
    front_end = TextFrontEnd(tokenizer)
    for case in cases:
        assert_robust_segments(front_end, case["text"])


def test_texts_of_each_request_mode(golden_lm: Path) -> None:
    golden = json.loads((golden_lm / "modes.json").read_text(encoding="utf-8"))
    front_end = TextFrontEnd(
        Tokenizer.from_directory(vocabulary_directory("tiny", golden_lm)), profile=Profile.REFERENCE
    )
    assert list(front_end.segments(golden["tts_text"])) == [golden["segment"]]
    assert front_end.normalise(golden["prompt_text"]) == golden["prompt_text_normalized"]
    text = front_end.encode(golden["segment"])
    transcript = front_end.encode(front_end.normalise(golden["prompt_text"]))
    instruction = front_end.encode_instruction(golden["instruct_text"])
    prompts = {
        "sft": [],
        "zero_shot": transcript,
        "cross_lingual": [],
        "instruct2": instruction,
        "zero_shot_saved_spk": transcript,
        "cross_lingual_saved_spk": [],
    }
    for mode, prompt in prompts.items():
        expected = golden["modes"][mode]
        assert expected["text"][1] == [1, len(text)]
        assert expected.get("prompt_text", [None, [1, 0]])[1] == [1, len(prompt)]
        merged = expected["__lm_merged_ids"]
        first_text_id = merged[0] + 2
        assert merged[1 : 1 + len(prompt) + len(text)] == [first_text_id + number for number in prompt + text]
