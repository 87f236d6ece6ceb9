"""Which words a lexicon finds, and which entries it refuses."""

from __future__ import annotations

import pickle

import pytest

from cosyvoice_core.errors import InputError
from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.lexicon import MAX_ENTRIES, MAX_REPLACEMENT, MAX_WORD, Lexicon
from cosyvoice_core.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        ({"AI": "A I"}, "AI said: ai, Ai. AIs and plAIn", "A I said: A I, A I. AIs and plAIn"),
        ({"new": "gnu", "New York": "Noo York"}, "new york, new car", "Noo York, gnu car"),
        ({"重庆": "崇庆", "重庆市": "崇庆城"}, "从重庆市到重庆人", "从崇庆城到崇庆人"),
        ({"kubectl": "cube control"}, "用kubectl部署", "用cube control部署"),
        ({"C++": "see plus plus"}, "C++ and C++17", "see plus plus and see plus plus17"),
        ({"café": "kaffay"}, "Cafe\u0301, CAFÉ, cafés", "Cafe\u0301, kaffay, cafés"),
        ({"Привет": "Здравствуй"}, "привет! Приветы", "Здравствуй! Приветы"),
        ({"x": "y", "y": "x"}, "x y", "y x"),
        ({}, "untouched", "untouched"),
    ],
)
def test_replacements(words: dict[str, str], text: str, expected: str) -> None:
    assert Lexicon.from_mapping(words).apply(text) == expected


def test_letters_that_grow_when_lowered_keep_positions() -> None:
    assert Lexicon.from_mapping({"end": "finish"}).apply("İİİ end") == "İİİ finish"


def test_request_overrides_server() -> None:
    server = Lexicon.from_mapping({"a": "server a", "b": "server b"})
    merged = server.merged(Lexicon.from_mapping({"A": "request a"}))
    assert merged.apply("a b") == "request a server b"
    assert server.merged(Lexicon()) is server
    assert server.apply("a") == "server a"


@pytest.mark.parametrize(
    "words",
    [
        {"": "nothing"},
        {"   ": "blank"},
        {"w" * (MAX_WORD + 1): "long"},
        {"word": "r" * (MAX_REPLACEMENT + 1)},
        {f"w{number}": "" for number in range(MAX_ENTRIES + 1)},
        {"word": 5},
    ],
)
def test_limits_name_the_field(words: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        Lexicon.from_mapping(words)
    assert caught.value.field == "lexicon"


def test_travels_between_processes() -> None:
    lexicon = Lexicon.from_mapping({"AI": "A I"})
    assert pickle.loads(pickle.dumps(lexicon)).apply("ai") == "A I"


def test_front_end_applies_server_and_request_words(demo_tokenizer: Tokenizer) -> None:
    server = Lexicon.from_mapping({"kubectl": "cube control", "lol": "[laughter]"})
    request = Lexicon.from_mapping({"nginx": "engine 10"})
    robust = TextFrontEnd(demo_tokenizer, lexicon=server)
    assert list(robust.segments("Run kubectl and nginx lol.", request)) == [
        "Run cube control and engine ten [laughter]."
    ]
    assert robust.normalise("Run kubectl.") == "Run cube control."
    reference = TextFrontEnd(demo_tokenizer, Profile.REFERENCE, server)
    assert list(reference.segments("Run kubectl and nginx.", request)) == ["Run cube control and engine ten ."]


def test_replacements_cannot_smuggle_control_tokens(demo_tokenizer: Tokenizer) -> None:
    lexicon = Lexicon.from_mapping({"evil": "<|endoftext|>", "half": "<|endof", "rest": "text|>"})
    front_end = TextFrontEnd(demo_tokenizer, lexicon=lexicon)
    for text in ("evil words.", "half rest word.", "<|endof evil text|> word."):
        for segment in front_end.segments(text):
            assert demo_tokenizer.special_ids["<|endoftext|>"] not in front_end.encode(segment)
