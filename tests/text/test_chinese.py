"""How Chinese sentences are read, and that Chinese numbers stay out of other languages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.text.chinese import read_chinese
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.number_reader import GrammarReader
from cosyvoice_core.text.script import Language

GRAMMAR = GrammarReader()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天有3个人，共1,234元。", "今天有三个人，共一千两百三十四元。"),
        ("圆周率是3.14。", "圆周率是三点一四。"),
        ("营业24/7。", "营业七乘二十四。"),
        ("价格$5.20，涨了50%。", "价格五点二零美元，涨了百分之五十。"),
        ("2024-05-01的10:30开会。", "二零二四年五月一日的十点三十分开会。"),
        ("升级到v2.0.1版。", "升级到v二点零点一版。"),
        ("请访问https://example.com/a。", "请访问example点com斜杠a。"),
        ("发邮件到bob@example.com吧。", "发邮件到bob艾特example点com吧。"),
        ("地址是192.168.1.10。", "地址是一九二点一六八点一点十。"),
        ("电话010-12345678。", "电话零幺零，幺二三四五六七八。"),
        ("新冠COVID-19和GPT-4。", "新冠COVID十九和GPT四。"),
        ("第①步，温度36.5℃。", "第一步，温度三十六点五摄氏度。"),
        ("占5‰，约1～3个。", "占千分之五，约一到三个。"),
        ("1. 第一步", "一，第一步。"),
    ],
)
def test_numbers(front_end: TextFrontEnd, text: str, expected: str) -> None:
    assert front_end.normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我喜欢 deep  learning 和 machine learning。", "我喜欢deep learning和machine learning。"),
        ("北京 - 上海 的高铁", "北京，上海的高铁。"),
        ("他说（开玩笑）要走——真的", "他说，开玩笑，要走，真的。"),
        ("他问：“你去吗？”我说：“不去。”", "他问：你去吗？我说：不去。"),
        ("第一行，\n第二行\n第三行", "第一行，第二行。第三行。"),
        ("今天好开心😀🎉，一起去玩吧！！！", "今天好开心，一起去玩吧！"),
        ("嗯……好吧……", "嗯，好吧。"),
        ("等一下，，、,", "等一下。"),
    ],
)
def test_punctuation(front_end: TextFrontEnd, text: str, expected: str) -> None:
    assert front_end.normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今日は3時に会いましょう。", "今日は3時に会いましょう。"),
        ("東京は2020年です。東京2020。", "東京は2020年です。東京2020。"),
        ("２,０００円で3.5%です", "2,000円で3.5%です。"),
        ("사과 3개와 배 10개를 샀어요.", "사과 3개와 배 10개를 샀어요."),
        ("У меня 5 яблок за 3,50 €.", "У меня 5 яблок за 3,50 €."),
        ("عندي ٣ كتب", "عندي ٣ كتب."),
        ("मेरे पास 3 किताबें हैं।", "मेरे पास 3 किताबें हैं।"),
    ],
)
def test_other_languages_keep_their_digits(front_end: TextFrontEnd, text: str, expected: str) -> None:
    assert front_end.normalise(text) == expected


def test_each_sentence_is_read_in_its_language(front_end: TextFrontEnd) -> None:
    assert front_end.normalise("I have 3 apples. 我有3个苹果，他们也有3个苹果。 のど3個。") == (
        "I have three apples.我有三个苹果，他们也有三个苹果。のど3個。"
    )


class BrokenNormaliser:
    def __init__(self, **_options: object) -> None:
        pass

    def normalize(self, text: str) -> str:
        raise RuntimeError(text)


def test_failing_grammar_leaves_the_text_and_digits_are_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wetext.Normalizer", BrokenNormaliser)
    broken = GrammarReader()
    assert broken("有3个", Language.CHINESE) == "有3个"
    assert read_chinese("有3个", broken) == "有三个"


def test_long_texts_reach_the_grammar_in_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Recorder(BrokenNormaliser):
        def normalize(self, text: str) -> str:
            seen.append(len(text))
            return text

    monkeypatch.setattr("wetext.Normalizer", Recorder)
    text = "There are 3 of them, and 4 more. " * 300
    assert GrammarReader()(text, Language.ENGLISH) == text
    assert len(seen) > 1 and max(seen) <= 800


@settings(max_examples=40)
@given(st.text(alphabet=st.sampled_from('0123456789.,:/-+$%年个第点~x^ A"\\{}'), max_size=30))
def test_no_digit_is_left(text: str) -> None:
    assert not re.search(r"[0-9]", read_chinese(text, GRAMMAR))
