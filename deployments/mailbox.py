"""Texts that are still being written, kept where every stage can read them.

A Serve call cannot take a stream as its argument, so whoever reads a growing text asks for what lies behind the
position it has, and is answered when there is something. What has been read stays until the text is dropped, so
that a stage that replaces a lost one reads it from the start. Everything is bounded: texts, their sizes, and how long
one may lie untouched. Knows neither Ray nor what is done with the texts; imports little, as it lives in a process of
its own.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from cosyvoice_core.errors import InputError


class OverloadedError(RuntimeError):
    """No more of this kind of work is taken now; it can be tried again, after `retry_after_s` with some hope."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type[OverloadedError], tuple[str, float]]:
        return type(self), (str(self), self.retry_after_s)


Piece = str | tuple[int, ...]
"""Characters as they were written, or text ids of one utterance."""


@dataclass(frozen=True, slots=True)
class TextSource:
    """Where a growing text is: the name of a mailbox and the text's own name in it."""

    mailbox: str
    text: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """What lies behind a position; `ended` when nothing will follow."""

    pieces: tuple[Piece, ...]
    ended: bool


@dataclass(slots=True)
class _Text:
    pieces: list[Piece] = field(default_factory=list)
    size: int = 0
    ended: bool = False
    touched: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.touched = time.monotonic()
        self.changed.set()
        self.changed = asyncio.Event()


class Mailbox:
    """Growing texts by name."""

    def __init__(self, max_texts: int, max_size: int, forget_after_s: float) -> None:
        """max_size: characters or ids of one text; forget_after_s: a text that nobody writes or reads for so long
        is dropped when the next one is opened."""
        self._max_texts = max_texts
        self._max_size = max_size
        self._forget_after_s = forget_after_s
        self._texts: dict[str, _Text] = {}

    async def open(self, name: str) -> None:
        """Begin a text. Raises OverloadedError when there are too many."""
        oldest = time.monotonic() - self._forget_after_s
        for stale in [known for known, text in self._texts.items() if text.touched < oldest]:
            await self.drop(stale)
        if len(self._texts) >= self._max_texts:
            raise OverloadedError(f"{self._max_texts} texts are being written here already; try again shortly")
        self._texts[name] = _Text()

    async def put(self, name: str, pieces: tuple[Piece, ...], end: bool = False) -> None:
        """Append to a text, or end it. Raises InputError when it is too long or not open."""
        text = self._open_text(name)
        if text.ended:
            raise InputError("input", "the text has ended already")
        size = text.size + sum(map(len, pieces))
        if size > self._max_size:
            raise InputError(
                "input", f"the text has more than {self._max_size} characters", f"at most {self._max_size}"
            )
        text.pieces += (piece for piece in pieces if piece)
        text.size, text.ended = size, end
        text.wake()

    async def read(self, name: str, position: int, wait_s: float) -> Pieces:
        """Pieces from number `position` on, as soon as there are any; none after `wait_s`, or at the text's end.

        Raises InputError when the text is not open, or is dropped meanwhile.
        """
        text = self._open_text(name)
        text.touched = time.monotonic()
        if len(text.pieces) <= position and not text.ended:
            try:
                async with asyncio.timeout(wait_s):
                    await text.changed.wait()
            except TimeoutError:
                pass
            self._open_text(name)
        return Pieces(tuple(text.pieces[position:]), text.ended)

    async def drop(self, name: str) -> None:
        """Forget a text; whoever waits for it is told. An unknown one is no error."""
        text = self._texts.pop(name, None)
        if text is not None:
            text.wake()

    async def count(self) -> int:
        return len(self._texts)

    def _open_text(self, name: str) -> _Text:
        try:
            return self._texts[name]
        except KeyError:
            raise InputError("input", "the text is closed; nobody speaks it any more") from None
