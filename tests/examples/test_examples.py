"""What the examples do without a service: each says how it is run, and their own rules hold."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.audiobook import CAST, STORY, script_of
from examples.customer_service import INSTRUCTIONS, Mood, a_call
from examples.translator import GERMAN, PhraseBook

FOLDER = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_says_how_it_is_run(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert "make serve" in said
    assert f"examples.{path.stem}" in said or f"examples/{path.name}" in said


async def pieces(text: str, size: int) -> AsyncIterator[str]:
    for at in range(0, len(text), size):
        yield text[at : at + size]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_a_translation_is_the_same_wherever_its_text_is_cut(size: int) -> None:
    text = "Guten Morgen. Der Zug fährt um neun, Anna! Es ist kalt"
    book = PhraseBook(GERMAN)
    translated = "".join([piece async for piece in book.translated(pieces(text, size))])
    assert translated == " good morning. the train leaves at nine, Anna! it is cold"


async def test_a_translation_begins_before_its_text_has_ended() -> None:
    taken = 0

    async def counted() -> AsyncIterator[str]:
        nonlocal taken
        async for piece in pieces("Guten Morgen. Der Zug fährt um neun.", 3):
            taken += 1
            yield piece

    words = PhraseBook(GERMAN).translated(counted())
    assert await anext(words) == " good morning"
    assert taken < 8


def test_a_story_has_its_voices_and_what_is_in_brackets_is_how() -> None:
    lines = script_of(STORY, CAST)
    assert [line["voice"] for line in lines] == [
        "demo_female",
        "demo_bright",
        "demo_female",
        "demo_deep",
        "demo_bright",
    ]
    assert lines[1]["text"] == "Good morning, how are you today?"
    assert lines[4]["instructions"] == "Speak in a happy tone."
    (stranger,) = script_of("Carl: Hello.", CAST)
    assert stranger == {"voice": "demo_female", "text": "Carl: Hello."}


def test_complaints_in_a_row_raise_the_level_and_a_kind_word_ends_it() -> None:
    assert [(reply.emotion, reply.level) for reply in a_call()] == [
        ("friendly", 1),
        ("apologetic", 1),
        ("apologetic", 2),
        ("apologetic", 3),
        ("friendly", 1),
    ]
    mood = Mood()
    assert [mood.reply("Sorry.", to_complaint=True).level for _ in range(5)] == [1, 2, 3, 3, 3]
    assert len({reply.instructions for reply in a_call()}) == 4
    assert {len(levels) for levels in INSTRUCTIONS.values()} == {3}
