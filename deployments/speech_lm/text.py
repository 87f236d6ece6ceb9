"""Growing texts as the language model's replica takes them: so many at once, and none that stands still for long.

Knows no engine; all of them are fed with the iterator that comes out.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from deployments.mailbox import OverloadedError, Piece, TextSource
from deployments.text_source import TextReader


class Reader(Protocol):
    """Gives the pieces of a text as they come."""

    def pieces(self, source: TextSource, idle_s: float) -> AsyncIterator[Piece]: ...


class Notes(Protocol):
    """Is told when an utterance waits for its text."""

    def text_awaited(self) -> None: ...

    def text_arrived(self) -> None: ...


class GrowingTexts:
    """The growing texts of one replica.

    A sequence whose text has not ended may pause at any time and keeps its place meanwhile. So that such ones never
    take all places, only `most` are let in; one that has its whole text counts no more.
    """

    def __init__(self, most: int, idle_timeout_s: float, reader: Reader | None = None) -> None:
        self._most = most
        self._idle_timeout_s = idle_timeout_s
        self._reader = reader or TextReader()
        self._growing = 0

    def allow(self, most: int, idle_timeout_s: float) -> None:
        """Change the bounds for texts that come from now on."""
        self._most, self._idle_timeout_s = most, idle_timeout_s

    def admit(self) -> GrowingText:
        """Take one more. Raises OverloadedError at once when there are too many."""
        if self._growing >= self._most:
            raise OverloadedError(f"{self._most} texts are being written on this replica already")
        self._growing += 1
        return GrowingText(self)

    def left(self) -> None:
        self._growing -= 1

    def pieces(self, source: TextSource) -> AsyncIterator[Piece]:
        return self._reader.pieces(source, self._idle_timeout_s)


class GrowingText:
    """One text; counts as growing until its end or until the context is left."""

    def __init__(self, texts: GrowingTexts) -> None:
        self._texts = texts
        self._growing = True

    def __enter__(self) -> GrowingText:
        return self

    def __exit__(self, *_error: object) -> None:
        self._end()

    async def ids(self, source: TextSource, notes: Notes) -> AsyncIterator[tuple[int, ...]]:
        """Text ids as they arrive. Raises InputError when none come for too long or the text is gone."""
        notes.text_awaited()
        async for piece in self._texts.pieces(source):
            assert isinstance(piece, tuple)
            notes.text_arrived()
            yield piece
            notes.text_awaited()
        notes.text_arrived()
        self._end()

    def _end(self) -> None:
        if self._growing:
            self._growing = False
            self._texts.left()
