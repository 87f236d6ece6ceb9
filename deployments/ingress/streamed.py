"""A text that is still being written, from its pieces to utterances that are already under way.

Reads the pieces, takes what is certain of them as text ids, and puts those where the language model reads them. Knows
neither doors nor audio.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial
from itertools import groupby
from typing import Protocol

from cosyvoice_core.errors import InputError
from cosyvoice_core.streamed import StreamedText, UtteranceText
from cosyvoice_core.utterance import Utterance
from deployments.mailbox import Piece, TextSource
from deployments.messages import AudioHop

# Utterances whose text has come but whose turn has not; more text waits where it is written.
_WAITING_UTTERANCES = 2

MakeUtterance = Callable[[int], Utterance]
StartStreamed = Callable[[Utterance, float, TextSource, Callable[[], float]], AsyncGenerator[AudioHop, None]]
"""(utterance, lead, where its text ids arrive, seconds since some did) -> its audio."""


class Texts(Protocol):
    """Where growing texts are kept."""

    async def open(self) -> TextSource: ...

    async def put(self, source: TextSource, pieces: tuple[Piece, ...], end: bool = False) -> None: ...

    def drop(self, source: TextSource) -> None: ...


class StreamedUtterances:
    """Utterances of one growing text; use as a context manager, which ends the reading and drops what is left."""

    def __init__(
        self,
        pieces: AsyncIterator[str],
        splitter: StreamedText,
        make: MakeUtterance,
        texts: Texts,
        text_thread: ThreadPoolExecutor,
        max_characters: int,
    ) -> None:
        self._pieces = pieces
        self._splitter = splitter
        self._make = make
        self._texts = texts
        self._text_thread = text_thread
        self._max_characters = max_characters
        self._opened: asyncio.Queue[int | None] = asyncio.Queue(_WAITING_UTTERANCES)
        self._sources: dict[int, TextSource] = {}
        self._arrived: dict[int, float] = {}
        self._growing: int | None = None
        self._error: Exception | None = None
        self._feeder: asyncio.Task[None] | None = None

    async def __aenter__(self) -> StreamedUtterances:
        self._feeder = asyncio.create_task(self._feed())
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._feeder is not None
        self._feeder.cancel()
        await asyncio.gather(self._feeder, return_exceptions=True)
        for index in list(self._sources):
            self._drop(index)

    @property
    def ready(self) -> bool:
        """Whether `next_utterance` has an answer."""
        return not self._opened.empty()

    async def next_utterance(self) -> Utterance | None:
        """The next utterance, as soon as it has text; None at the end of the text. Raises what ended the reading."""
        index = await self._opened.get()
        if index is not None:
            return self._make(index)
        if self._error is not None:
            raise self._error
        return None

    def complete(self, utterance: Utterance) -> bool:
        """Whether all of its text has come."""
        return utterance.index != self._growing

    async def audio(self, start: StartStreamed, utterance: Utterance, lead_s: float) -> AsyncGenerator[AudioHop, None]:
        """Audio of an utterance; if its text broke off, raises why."""
        index = utterance.index
        try:
            source = self._sources.get(index)
            if source is None:
                raise InputError("input", "the text broke off")
            hops = start(utterance, lead_s, source, partial(self._age_s, index))
            async with aclosing(hops):
                async for hop in hops:
                    yield hop
        except InputError as error:
            raise self._error or error from None
        finally:
            self._drop(index)

    def _age_s(self, index: int) -> float:
        return time.monotonic() - self._arrived[index]

    async def _feed(self) -> None:
        loop = asyncio.get_running_loop()
        length = 0
        try:
            async for piece in self._pieces:
                length += len(piece)
                if length > self._max_characters:
                    problem = f"the text has more than {self._max_characters} characters"
                    raise InputError("input", problem, f"at most {self._max_characters}")
                await self._deliver(await loop.run_in_executor(self._text_thread, self._splitter.push, piece))
            await self._deliver(await loop.run_in_executor(self._text_thread, self._splitter.flush))
            if not self._arrived:
                problem = "the text holds nothing that can be spoken"
                raise InputError("input", problem, "letters or digits of any script")
        except Exception as error:  # noqa: BLE001 - handed to whoever plays the utterances
            self._error = error
            if self._growing is not None:
                self._drop(self._growing)
        await self._opened.put(None)

    async def _deliver(self, texts: list[UtteranceText]) -> None:
        for index, group in groupby(texts, lambda text: text.index):
            portions = list(group)
            if index not in self._arrived:
                self._sources[index] = await self._texts.open()
                self._growing = index
                self._arrived[index] = time.monotonic()
                await self._opened.put(index)
            self._arrived[index] = time.monotonic()
            ids = tuple(portion.ids for portion in portions if portion.ids)
            if portions[-1].last:
                self._growing = None
            if index in self._sources:
                await self._texts.put(self._sources[index], ids, portions[-1].last)

    def _drop(self, index: int) -> None:
        source = self._sources.pop(index, None)
        if source is not None:
            self._texts.drop(source)
