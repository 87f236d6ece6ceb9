"""Where sentences end, and that texts of any size are cut into small blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_core.text.clean import clean
from cosyvoice_core.text.sentences import blocks, sentences
from cosyvoice_core.text.tags import mask, unmask


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met J. K. Rowling. Then he left.", ["Dr. Smith met J. K. Rowling.", "Then he left."]),
        ("It was 3.14, v2.0.1. No. 5 won. No. I won.", ["It was 3.14, v2.0.1.", "No. 5 won.", "No.", "I won."]),
        ("See https://a.com/?q=1.B for it! Fine.Really.", ["See https://a.com/?q=1.B for it!", "Fine.", "Really."]),
        ('He said "Stop!" and "Why?" before. "Go!" Ok.', ['He said "Stop!" and "Why?" before.', '"Go!"', "Ok."]),
        ("Wait... What? Well... I see.", ["Wait…", "What?", "Well…", "I see."]),
        ("你好。世界！好吗？", ["你好。", "世界！", "好吗？"]),
        ("他问：“去吗？”我说。", ['他问："去吗？"', "我说。"]),
        ("「はい。」と言った。そう。", ["「はい。」と言った。", "そう。"]),
        ("你好.世界.3.5个", ["你好.", "世界.3.5个"]),
        ("كيف حالك؟ بخير۔ नमस्ते। ठीक॥", ["كيف حالك؟", "بخير۔", "नमस्ते।", "ठीक॥"]),
        ("Ha! [laughter] Good.</strong> Next.", ["Ha!", "[laughter] Good.</strong>", "Next."]),
        ("Title\n\nText goes\non here.\n- item\n- other", ["Title", "Text goes on here.", "- item", "- other"]),
        ("a line that was wrapped by an editor at some width or\nother. End.", None),
        ("你好 \n 世界", ["你好", "世界"]),
        ("", []),
        (" \n \n", []),
    ],
)
def test_ends(text: str, expected: list[str] | None) -> None:
    if expected is None:
        expected = [text.replace("\n", " ").removesuffix(" End."), "End."]
    assert [unmask(sentence) for sentence in sentences(mask(clean(text)))] == expected


@given(st.text(max_size=300), st.integers(1, 60))
def test_blocks_lose_nothing_and_are_small(text: str, repeat: int) -> None:
    found = list(blocks(text * repeat))
    assert "".join(found) == text * repeat
    assert all(0 < len(block) <= 2000 for block in found)


def test_blocks_end_with_sentences_where_there_are_any() -> None:
    assert all(block.rstrip().endswith("dog.") for block in blocks("The quick brown fox sees a dog. " * 1000))
    assert all(block.endswith("。") for block in blocks("今天天气很好。" * 1000))
