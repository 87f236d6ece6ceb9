"""Lengths of segments: nothing over the limit, no stumps, and cuts where a reader would pause."""

from __future__ import annotations

import itertools

import pytest

from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.split import SplitLimits
from cosyvoice_core.text.tokenizer import Tokenizer
from tests.text.invariants import assert_robust_segments

LONG_TEXTS = {
    "chinese": "这是一段没有任何句号的很长的文字" * 30,
    "clauses": "我们走过了很多地方，看过了许多风景，" * 20,
    "kana": "きょうはいいてんきですね" * 40,
    "small kana": "ーっゃ" * 200,
    "thai": "สวัสดีครับวันนี้อากาศดี" * 30,
    "latin words": "word " * 500,
    "one latin word": "a" * 3000,
    "hangul jamo": "\u1100" * 500,
    "korean": "안녕하세요 " * 200,
    "arabic": "مرحبا كيف حالك " * 100,
    "digits": "7" * 500,
    "tags": "[vocalized-noise]" * 100,
    "marks": "a" + "\u0301" * 3000,
    "mixed": "用Python写代码and then部署" * 40,
    "arabic in chinese": "阿拉伯语" + "مرحبا" * 100,
}


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_over_long_texts_are_cut(front_end: TextFrontEnd, name: str) -> None:
    segments = assert_robust_segments(front_end, LONG_TEXTS[name])
    assert len(segments) > 1 or name == "marks"


@pytest.mark.parametrize("limits", [SplitLimits(24, 24), SplitLimits(200, 150), SplitLimits(40, 40, 1, 1)])
def test_limits_are_kept(demo_tokenizer: Tokenizer, limits: SplitLimits) -> None:
    front_end = TextFrontEnd(demo_tokenizer, limits=limits)
    for text in LONG_TEXTS.values():
        assert_robust_segments(front_end, text, limits)


def test_no_words_are_lost_by_cutting(front_end: TextFrontEnd) -> None:
    words = [f"{a}{b}{c}" for a, b, c in itertools.product("bcdfg", "aeiou", "lmnpr")]
    spoken = " ".join(segment.rstrip(".") for segment in front_end.segments(" ".join(words)))
    assert spoken.lower().split() == words


def test_cuts_prefer_commas(front_end: TextFrontEnd) -> None:
    clause = "and here is another clause of middling length, "
    for segment in front_end.segments(clause * 12):
        assert segment.lower().endswith("length.")


def test_unpunctuated_text_is_cut_evenly(front_end: TextFrontEnd) -> None:
    lengths = [len(segment) for segment in front_end.segments("甲" * 170)]
    assert len(lengths) == 3 and max(lengths) - min(lengths) <= 2


def test_short_sentences_are_joined(front_end: TextFrontEnd) -> None:
    assert list(front_end.segments("One. Two! Three? 四。五！")) == ["One. Two! Three?四。五！"]


def test_joining_can_be_switched_off(demo_tokenizer: Tokenizer) -> None:
    single = TextFrontEnd(demo_tokenizer, limits=SplitLimits(join_tokens=1, join_characters=1))
    assert list(single.segments("One. Two! 四。五！")) == ["One.", "Two!", "四。", "五！"]


@pytest.mark.parametrize("values", [{"max_tokens": 23}, {"max_characters": 0}, {"join_tokens": 0}])
def test_senseless_limits_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        SplitLimits(**values)
