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
from pathlib import Path
from typing import Any

import pytest

from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.number_reader import GrammarReader, ReadNumbers
from cosyvoice_core.text.reference import ReferenceFrontEnd
from cosyvoice_core.text.script import Language, reference_branch
from cosyvoice_core.text.tokenizer import Tokenizer
from tests.golden_tests.arrays import unknown
from tests.golden_tests.vocabularies import VOCABULARIES, vocabulary_directory
from tests.text.invariants import assert_robust_segments

pytestmark = pytest.mark.golden

Case = dict[str, Any]
VARIANTS = ("ref", "wetext010", "wetext018", "no_tn")


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


def computed(cases: list[Case], variant: str, vocabulary: str) -> list[tuple[str, str, list[str]]]:
    """Text, normalised text and segments of the cases in which the original did not raise; there must be some.

    Chinese segments are measured in characters, so those of any vocabulary can be compared without having it.
    """
    found = []
    for case in cases:
        stored, text = case.get(variant), case["text"]
        if stored is None:
            continue
        counted = is_off(text) or reference_branch(text) is Language.CHINESE
        for key in ("segments_tiny", "segments_real") if counted else (f"segments_{vocabulary}",):
            normalised, segments = stored["normalized"], stored[key]
            if not isinstance(normalised, dict) and not isinstance(segments, dict):
                found.append((text, normalised, segments))
    assert found
    return found


def original_front_end(tokenizer: Tokenizer, read_numbers: ReadNumbers) -> ReferenceFrontEnd:
    return ReferenceFrontEnd(lambda text: len(tokenizer.encode(text)), read_numbers)


def test_every_field_is_known(cases: list[Case]) -> None:
    for case in cases:
        assert unknown(case, ["id", "text", *VARIANTS, "frontend_off"]) == [], case["id"]
        for variant in set(VARIANTS) & set(case):
            assert unknown(case[variant], ["normalized", "segments_(tiny|real)"]) == [], case["id"]


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
        for variant in VARIANTS
        if variant in case and isinstance(case[variant][f"segments_{vocabulary}"], dict)
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
