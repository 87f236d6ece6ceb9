"""Text that is still being written: the same portions however it is cut, early, and read as a complete text is."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_core.streamed import StreamedLimits, StreamedText
from cosyvoice_core.text.frontend import Profile, TextFrontEnd
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.stream import TextPortion
from cosyvoice_core.text.tags import INLINE_TAGS
from cosyvoice_core.text.tokenizer import Tokenizer
from tests.text.test_frontend import HARD_TEXT

LEXICON = Lexicon.from_mapping({"New York": "Nu Jork", "重庆": "崇庆", "sql": "sequel"})
FRAGMENTS = (
    *("Hello", "world", "Dr.", "Smith,", "$5", "million", "3.5%", "May", "5", "New", "York", "SQL", "-", "(well)"),
    *("e.g.", "end.", "what?", "我花了3.5元。", "重", "庆", "今天天气很好，我们去公园散步吧", "これは", "สวัสดีครับ"),
    *("\n", "\n\n", "1.", "[breath]", "<strong>", "</strong>", "<|endoftext|>", "😀", "“quoted”", "example.com"),
    *("&amp;", "<a href='x y'>"),
)
WORDS = st.lists(st.sampled_from(FRAGMENTS), max_size=25).map(" ".join)


def portions(front_end: TextFrontEnd, *pieces: str) -> list[TextPortion]:
    stream = front_end.stream(LEXICON)
    found = [portion for piece in pieces for portion in stream.push(piece)]
    return found + stream.flush()


def written(front_end: TextFrontEnd, *pieces: str) -> str:
    return "".join(portion.text for portion in portions(front_end, *pieces)).lstrip()


@settings(max_examples=200)
@given(text=st.one_of(WORDS, HARD_TEXT), data=st.data())
def test_the_pieces_do_not_matter(front_end: TextFrontEnd, text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert portions(front_end, *pieces) == portions(front_end, text)
    assert portions(front_end, *text) == portions(front_end, text)


@settings(max_examples=200)
@given(text=st.one_of(WORDS, HARD_TEXT))
def test_any_string_gives_sound_portions(front_end: TextFrontEnd, text: str) -> None:
    control = {number for token, number in front_end.tokenizer.special_ids.items() if token not in INLINE_TAGS}
    for portion in portions(front_end, text):
        ids = front_end.encode(portion.text)
        assert ids
        assert not control & set(ids)
        assert "  " not in portion.text
        assert "\n" not in portion.text


@pytest.mark.parametrize(
    "text",
    [
        "Hello world, how are you? I am fine. Dr. Smith paid $5 million in 1850, i.e. 3.5% of it. On May 5 he left!",
        "Use example.com or a@b.co - it works (mostly) for Tom & Jerry... and 5 + 3 = 8. Then 24 km/h.",
        'Wait... what? "Really?" she said. St. John\'s St. is near. The U.S. army came. No. 5 is alive.',
        "今天是2024年5月3日，天气很好。我花了3.5元买苹果！你好吗？好的",
        "我喜欢Python编程，也喜欢Java语言。",
        "これは日本語です。とてもいいですね！",
        "[breath] Well <strong>yes</strong> it is don't 😀 stop",
        "in New York City we say SQL, not sequel",
        "It costs 1,234.56 dollars; at 10:30 on 2024-05-01 it will cost €7.",
    ],
)
def test_a_streamed_text_is_read_as_a_complete_one(front_end: TextFrontEnd, text: str) -> None:
    complete = "".join(
        segment if not index or ord(segment[0]) > 0x3000 else f" {segment}"
        for index, segment in enumerate(front_end.segments(text, LEXICON))
    )
    assert written(front_end, text) == complete


def test_a_word_leaves_when_the_next_blank_arrives(front_end: TextFrontEnd) -> None:
    stream = front_end.stream()
    assert stream.push("Good morn") == [TextPortion("Good")]
    assert stream.push("ing") == []
    assert stream.push(" ") == [TextPortion(" morning")]
    assert stream.push("all. ") == []
    assert stream.push("N") == [TextPortion(" all.", ends_sentence=True)]


def test_numbers_wait_for_the_word_behind_them_and_no_longer(front_end: TextFrontEnd) -> None:
    stream = front_end.stream()
    assert stream.push("It weighs 5 ") == [TextPortion("It"), TextPortion(" weighs")]
    assert stream.push("kg ") == [TextPortion(" five kilograms")]
    endless = "".join(portion.text for portion in stream.push("7 " * 200))
    assert endless.count("seven") > 100


@pytest.mark.parametrize(
    "text", ["今天天气很好我们一起去公园散步吧" * 20, "สวัสดีครับ" * 50, "あいうえお" * 50, "x" * 3000, "<b " * 400]
)
def test_what_is_held_back_is_bounded(front_end: TextFrontEnd, text: str) -> None:
    stream = front_end.stream(LEXICON)
    most = waited = 0
    for character in text:
        waited = 0 if stream.push(character) else waited + 1
        most = max(most, waited)
    assert most <= (12 if ord(text[0]) > 0x0E00 else 260)


def test_other_profiles_take_the_text_as_it_is_without_control_tokens(demo_tokenizer: Tokenizer) -> None:
    for profile in (Profile.OFF, Profile.REFERENCE):
        front_end = TextFrontEnd(demo_tokenizer, profile)
        assert written(front_end, "Pay $5  now", " <|endoftext|>ok.") == "Pay $5  now  ok."


def test_a_long_text_costs_little(front_end: TextFrontEnd) -> None:
    began = time.perf_counter()
    count = len(portions(front_end, "This is one of many sentences in it. " * 500))
    assert count >= 4000
    assert time.perf_counter() - began < 10


def utterances(front_end: TextFrontEnd, limits: StreamedLimits, *pieces: str) -> list[list[int]]:
    splitter = StreamedText(front_end.stream(), front_end.encode, limits)
    found: list[list[int]] = []
    closed = -1
    for text in [text for piece in pieces for text in splitter.push(piece)] + splitter.flush():
        assert text.index == closed + 1
        if text.index == len(found):
            found.append([])
        found[text.index] += text.ids
        closed = text.index if text.last else closed
    assert closed == len(found) - 1
    return found


@settings(max_examples=50)
@given(text=WORDS, sentence=st.integers(1, 30), extra=st.integers(0, 30))
def test_utterances_are_bounded_and_do_not_depend_on_pieces(
    front_end: TextFrontEnd, text: str, sentence: int, extra: int
) -> None:
    limits = StreamedLimits(sentence, sentence + extra)
    found = utterances(front_end, limits, text)
    assert utterances(front_end, limits, *text) == found
    assert all(0 < len(ids) <= limits.max_tokens for ids in found)


def test_an_utterance_ends_with_the_sentence_that_is_enough(front_end: TextFrontEnd) -> None:
    text = "Good morning. How are you? I am fine."
    assert len(utterances(front_end, StreamedLimits(1), text)) == 3
    (whole,) = utterances(front_end, StreamedLimits(200), text)
    assert whole == front_end.encode(text)


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="sentence_tokens"):
        StreamedLimits(10, 9)
