"""The robust profile as a whole: any string, bounded memory, tags and control tokens; instructions; threads."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.script import Language
from cosyvoice_core.text.tags import END_OF_PROMPT, INLINE_TAGS
from cosyvoice_core.text.tokenizer import Tokenizer
from tests.text.invariants import assert_robust_segments

FRAGMENTS = (
    *("<|endoftext|>", "<|im_start|>", "<|", "|>", *INLINE_TAGS, "[laugh", "ter]", "<", ">", "[", "]"),
    *("1,234", "3.14", "24/7", "$5.20", "10:30", "2024-05-01", "50%", "v2.0.1", "https://example.com/a?b=1#c"),
    *("a@b.co", "...", "——", "Dr. ", "e.g. ", "hello world ", "这是文字", "スーパー", "สวัสดี", "مرحبا", "한국어"),
    *("\n", "\n\n", "\r\n", "\t", " ", "\u3000", "。", "，", "“", "”", '"', "'", "。”", ".", "?", "!", "；", ":"),
    *("😀", "❤️", "👨\u200d👩\u200d👧", "1️⃣", "\u200b", "\ufeff", "\u202e", "\x00", "\x1b", "\ud800", "\udc00"),
    *(
        "²",
        "½",
        "①",
        "٣",
        "１",
        "Ａ",
        "ﬁ",
        "e\u0301",
        "\u0301\u0302\u0303\u0304\u0305",
        "\ue000",
        "\U0010ffff",
        "&lt;|x|&gt;",
    ),
)
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()), max_size=200)
RUN = st.builds(lambda fragment, times: fragment * times, st.sampled_from(FRAGMENTS), st.sampled_from([30, 300]))
HARD_TEXT = st.lists(st.one_of(st.sampled_from(FRAGMENTS), ANY_TEXT), max_size=40).map("".join)
LONG_TEXT = st.lists(st.one_of(HARD_TEXT, RUN), max_size=8).map("".join)


@settings(max_examples=250)
@given(st.one_of(HARD_TEXT, LONG_TEXT))
def test_any_string_gives_sound_segments(front_end: TextFrontEnd, text: str) -> None:
    assert_robust_segments(front_end, text)


@settings(max_examples=50)
@given(HARD_TEXT)
def test_reference_and_off_profiles_take_any_string(demo_tokenizer: Tokenizer, text: str) -> None:
    for profile in (Profile.REFERENCE, Profile.OFF):
        front_end = TextFrontEnd(demo_tokenizer, profile)
        front_end.encode(front_end.normalise(text))
        for segment in front_end.segments(text):
            front_end.encode(segment)


@pytest.mark.parametrize(
    "text", ["", "   ", "\n\n", "，。！？", "...!?", ". . .", "$%^&*", "😀🎉", "❤️", '"。', "（）【】"]
)
def test_nothing_to_say_gives_no_segments(front_end: TextFrontEnd, text: str) -> None:
    assert list(front_end.segments(text)) == []
    assert front_end.normalise(text) == ""


@pytest.mark.parametrize("tag", INLINE_TAGS)
def test_tags_pass_unharmed(front_end: TextFrontEnd, tag: str) -> None:
    number = front_end.tokenizer.special_ids[tag]
    for text in (f"Well {tag} I have 3.", f"{tag}我有3个{tag}。", f"日本{tag}です。"):
        (segment,) = front_end.segments(text)
        assert front_end.encode(segment).count(number) == text.count(tag)


@pytest.mark.parametrize(
    "token", ["<|endoftext|>", "<|im_start|>", "<|im_end|>", END_OF_PROMPT, "<|zh|>", "<|any-thing_1|>"]
)
def test_control_tokens_are_dropped(front_end: TextFrontEnd, token: str) -> None:
    assert list(front_end.segments(f"Hello {token}world 3{token}.")) == ["Hello world three."]
    full_width = token.translate(str.maketrans("<|>", "＜｜＞"))
    assert list(front_end.segments(f"Hello {full_width}world.")) == ["Hello world."]
    assert "endof" not in "".join(front_end.segments(f"A &lt;|endoftext|&gt; b {token}."))


def test_words_between_loose_bars_are_kept(front_end: TextFrontEnd) -> None:
    assert list(front_end.segments("a <| b |> c 3")) == ["A b c three."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hello world", "Hello world."),
        ("hello world,", "Hello world."),
        ("Really?!", "Really?"),
        ("Stop!!!", "Stop!"),
        ('He said "no."', "He said no."),
        ("iPhone sales, eBay", "iPhone sales, eBay."),
        ("This (really) is it — or not", "This, really, is it, or not."),
        ("It's 5 o'clock; the dogs' bowls aren't 'empty'.", "It's five o'clock; the dogs bowls aren't empty."),
        ("I ❤️ NY 👨\u200d👩\u200d👧", "I NY."),
        ("he\u200bllo\u00adw\x00orld", "Helloworld."),
        ("𝐇𝐞𝐥𝐥𝐨 ﬁne ｗｏｒｌｄ", "Hello fine world."),
        ("**Bold** <b>and</b> `code`&nbsp;_x_", "Bold and code x."),
        ("Hello，world。How are you？", "Hello, world. How are you?"),
    ],
)
def test_english_sentences_end_once_and_begin_with_a_capital(front_end: TextFrontEnd, text: str, expected: str) -> None:
    assert front_end.normalise(text) == expected


def test_instruction_ends_with_the_end_of_prompt_token(demo_tokenizer: Tokenizer) -> None:
    robust = TextFrontEnd(demo_tokenizer)
    end = demo_tokenizer.special_ids[END_OF_PROMPT]
    plain = demo_tokenizer.encode("Speak slowly.")
    for text in ("Speak slowly.", f"Speak slowly.{END_OF_PROMPT}", f"{END_OF_PROMPT}Speak slowly.<|endoftext|>"):
        assert robust.encode_instruction(text) == [*plain, end]
    nested = robust.encode_instruction(f"<|endof{END_OF_PROMPT}text|>\ud800")
    assert nested.count(end) == 1 and demo_tokenizer.special_ids["<|endoftext|>"] not in nested
    reference = TextFrontEnd(demo_tokenizer, Profile.REFERENCE)
    assert reference.encode_instruction("Speak slowly.") == [*plain, end]
    assert reference.encode_instruction(f"A{END_OF_PROMPT}b") == demo_tokenizer.encode(f"A{END_OF_PROMPT}b")


def test_ten_megabytes_start_at_once_in_little_memory(front_end: TextFrontEnd) -> None:
    sentence = "Early systems sounded robotic and flat, as Dr. Smith wrote in 1999. "
    unpunctuated = "这是一段没有任何句号的很长的文字"
    for text in (sentence * 150_000, unpunctuated * 600_000, " " * 9_000_000 + "end"):
        tracemalloc.start()
        started = time.monotonic()
        taken = list(itertools.islice(front_end.segments(text), 50))
        elapsed = time.monotonic() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken
        assert peak < 2_000_000
        assert elapsed < 20


def test_memory_does_not_grow_with_the_text(front_end: TextFrontEnd) -> None:
    def peak(repeats: int) -> int:
        text = "The cat sat on the mat, at 10:30. " * repeats
        tracemalloc.start()
        count = sum(1 for _ in front_end.segments(text))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count >= repeats // 5
        return most

    peak(100)
    assert peak(1000) < peak(200) + 100_000


def test_threads_may_share_a_front_end(front_end: TextFrontEnd) -> None:
    texts = [f"There are {number} cats. 有{number}只猫。" for number in range(60)]
    alone = [list(front_end.segments(text)) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: list(front_end.segments(text)), texts)) == alone


def test_grammar_prints_nothing_and_writes_nothing() -> None:
    program = (
        "import pathlib, importlib.util\n"
        "root = pathlib.Path(importlib.util.find_spec('wetext').origin).parent\n"
        "def state(): return sorted((str(p), p.stat().st_mtime_ns) for p in root.rglob('*') if p.suffix != '.pyc')\n"
        "before = [entry for entry in state() if '__pycache__' not in entry[0]]\n"
        "from cosyvoice_core.text.number_reader import GrammarReader\n"
        "from cosyvoice_core.text.script import Language\n"
        "reader = GrammarReader()\n"
        "assert reader('有3个', Language.CHINESE) == '有三个'\n"
        "assert reader('3 apples', Language.ENGLISH) == 'three apples'\n"
        "assert before == [entry for entry in state() if '__pycache__' not in entry[0]]\n"
    )
    ran = subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [("3.", None, "Three."), ("3.", Language.CHINESE, "三。"), ("Hello 3.", Language.CHINESE, "Hello three.")],
)
def test_a_language_that_is_named_counts_where_letters_do_not_tell(
    front_end: TextFrontEnd, text: str, language: Language | None, expected: str
) -> None:
    assert list(front_end.segments(text, language=language)) == [expected]
    stream = front_end.stream(language=language)
    written = "".join(portion.text for portion in [*stream.push(text), *stream.flush()])
    assert written.lower() == expected.lower()
