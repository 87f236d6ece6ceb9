"""How many growing texts a language model's replica takes, and what its metrics say meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest

from cosyvoice_core.errors import InputError
from deployments.args import LMArgs
from deployments.mailbox import OverloadedError, Piece, TextSource
from deployments.speech_lm.text import GrowingTexts

SOURCE = TextSource("here", "a")


class States:
    """Notes what the text does to a request."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def text_awaited(self) -> None:
        self.seen.append("awaited")

    def text_arrived(self) -> None:
        self.seen.append("arrived")


class Reader:
    def __init__(self, *pieces: Piece, error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error

    async def pieces(self, _source: TextSource, _idle_s: float) -> AsyncIterator[Piece]:
        for piece in self._pieces:
            yield piece
        if self._error is not None:
            raise self._error


def texts(reader: Reader, most: int = 2) -> GrowingTexts:
    return GrowingTexts(most, 30, reader)


def places(growing: GrowingTexts) -> int:
    """How many more would be let in."""
    with ExitStack() as stack:
        for count in itertools.count():
            try:
                stack.enter_context(growing.admit())
            except OverloadedError:
                return count
    raise AssertionError


async def test_one_too_many_is_refused_at_once_until_another_leaves() -> None:
    growing = texts(Reader())
    first = growing.admit()
    with growing.admit(), pytest.raises(OverloadedError, match="2 texts"):
        growing.admit()
    with first:
        assert places(growing) == 1
    assert places(growing) == 2


async def test_a_text_that_has_ended_counts_no_more() -> None:
    growing = texts(Reader((1, 2), (3,)))
    states = States()
    with growing.admit() as text:
        found = [ids async for ids in text.ids(SOURCE, states)]
        assert found == [(1, 2), (3,)]
        assert places(growing) == 2
    assert places(growing) == 2
    assert states.seen == ["awaited", "arrived", "awaited", "arrived", "awaited", "arrived"]


async def test_a_text_that_breaks_off_raises_and_is_counted_until_it_is_left() -> None:
    growing = texts(Reader((1,), error=InputError("input", "no text came")))
    with pytest.raises(InputError, match="no text came"), growing.admit() as text:
        async for _ in text.ids(SOURCE, States()):
            assert places(growing) == 1
    assert places(growing) == 2


def test_a_place_is_left_to_complete_texts() -> None:
    assert LMArgs(max_sequences=8, max_paused_sequences=32).growing_texts == 7
    assert LMArgs(max_sequences=64, max_paused_sequences=16).growing_texts == 16
    assert LMArgs(max_sequences=1).growing_texts == 1
