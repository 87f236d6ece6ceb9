"""Text that arrives while an utterance is being spoken: read into its plan as it comes. Knows no engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

from cosyvoice_core.errors import InputError
from cosyvoice_core.lm.interleave import Interleave


class ArrivingText:
    """Reads portions into a plan for as long as it is entered.

    A portion that cannot be spoken ends the reading; `check` raises what was wrong with it, and so does whatever the
    source of the text raised.
    """

    def __init__(self, plan: Interleave, text: AsyncIterator[tuple[int, ...]], room: int) -> None:
        """room: positions of the model's context, prediction included."""
        self._plan = plan
        self._text = text
        self._room = room
        self._news = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ArrivingText:
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    def check(self) -> None:
        """Raise what ended the reading, if anything but the text's end did."""
        if self._reader is not None and self._reader.done():
            self._reader.result()

    def wake(self) -> None:
        """Let `more` return now."""
        self._news.set()

    async def more(self, timeout_s: float | None) -> bool:
        """Wait until text has come or ended, or `wake` is called; False when that took longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    async def _read(self) -> None:
        try:
            async for portion in self._text:
                positions = len(self._plan.context) + self._plan.queued + len(portion) + 1
                if positions > self._room:
                    allowed = f"at most {self._room}"
                    raise InputError("text", f"needs at least {positions} positions with its prompt", allowed)
                self._plan.feed_text(portion)
                self._news.set()
            self._plan.end_text()
        finally:
            self._news.set()
