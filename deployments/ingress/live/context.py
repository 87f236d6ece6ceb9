"""One context of a live connection: its text as it is written, and its audio as it is made. Knows no socket."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from cosyvoice_core.errors import InputError
from cosyvoice_core.utterance import MAX_SEED
from deployments.ingress.callers import ANYONE, Caller
from deployments.ingress.errors import answer_for
from deployments.ingress.framing import Framing
from deployments.ingress.live.messages import (
    Audio,
    Cancelled,
    Done,
    Error,
    FirstAudio,
    Flushed,
    Outgoing,
    Segment,
    Start,
    Started,
)
from deployments.ingress.service import SpeechService
from deployments.mailbox import TextSource

Send = Callable[[Outgoing, bytes | None], Awaitable[None]]
"""Sends a message, and right behind it the bytes that belong to it, if there are any."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Text between two flushes. last: the context ends with it."""

    source: TextSource | None
    last: bool = False


class Context:
    """Speaks what is written to it until it is ended, cancelled or fails."""

    def __init__(
        self, service: SpeechService, start: Start, request_id: str, send: Send, caller: Caller = ANYONE
    ) -> None:
        """Raises InputError and ValueError for options that cannot be served."""
        self.id = start.context_id
        self._service = service
        self._start = start
        self._caller = caller
        self._request_id = request_id
        self._send = send
        self._form = start.form(service.sample_rate)
        self._framing = Framing(self._form, service.sample_rate)
        self._parts: asyncio.Queue[_Part] = asyncio.Queue()
        self._writing: TextSource | None = None
        self._sources: list[TextSource] = []
        self._complete = False
        self._samples = 0
        self._segments = self._spoken = 0
        # What can be told before there is text.
        service.request_of(start.call_for(TextSource("", "")).by(caller), streamed=True)
        self._speaking = asyncio.create_task(self._speak())

    async def write(self, text: str) -> None:
        """More text. Raises InputError once the text was ended, or is too long."""
        self._check_open()
        if not text:
            return
        if self._writing is None:
            self._writing = await self._service.open_text()
            self._sources.append(self._writing)
            self._parts.put_nowait(_Part(self._writing))
        await self._service.write_text(self._writing, text)

    async def flush(self) -> None:
        self._check_open()
        if self._writing is not None:
            await self._service.end_text(self._writing)
            self._writing = None

    async def end(self) -> None:
        self._check_open()
        await self.flush()
        self._complete = True
        self._parts.put_nowait(_Part(None, last=True))

    async def cancel(self) -> None:
        """Stop at once."""
        await self.close()
        await self._send(Cancelled(context_id=self.id), None)

    async def close(self) -> None:
        """Stop at once, without a word."""
        self._speaking.cancel()
        await asyncio.gather(self._speaking, return_exceptions=True)
        self._drop_texts()

    @property
    def open(self) -> bool:
        return not self._speaking.done()

    def _check_open(self) -> None:
        if self._complete:
            raise InputError("context_id", f"the text of context {self.id!r} has ended", "another context_id")

    async def _speak(self) -> None:
        try:
            await self._send(
                Started(context_id=self.id, request_id=self._request_id, sample_rate=self._form.sample_rate), None
            )
            while not (part := await self._parts.get()).last:
                assert part.source is not None
                before = self._samples
                await self._speak_part(part.source)
                self._sources.remove(part.source)
                audio_s = (self._samples - before) / self._service.sample_rate
                await self._send(Flushed(context_id=self.id, audio_s=audio_s), None)
            await self._send_audio(await self._framing.finish())
            await self._send(Done(context_id=self.id, audio_s=self._samples / self._service.sample_rate), None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other end is told, and other contexts go on
            self._drop_texts()
            await self._send(Error(context_id=self.id, error=answer_for(error).body()), None)

    def _drop_texts(self) -> None:
        """Forget what was written and is not spoken any more."""
        for source in self._sources:
            self._service.drop_text(source)
        self._sources.clear()

    async def _speak_part(self, source: TextSource) -> None:
        call = self._start.call_for(source).by(self._caller)
        # Parts of a context sound no more alike than two calls would, but are the same when all is said again.
        seed = None if call.seed is None else (call.seed + self._spoken) % MAX_SEED
        self._spoken += 1
        segment: int | None = None
        async with aclosing(self._service.speak(replace(call, seed=seed), self._request_id)) as chunks:
            async for chunk in chunks:
                if chunk.first_audio is not None:
                    parts = {name: round(seconds * 1000, 1) for name, seconds in chunk.first_audio.parts}
                    total_ms = round(chunk.first_audio.total_s * 1000, 1)
                    await self._send(FirstAudio(context_id=self.id, total_ms=total_ms, parts=parts), None)
                if not len(chunk.samples):
                    continue
                if chunk.segment != segment:
                    segment = chunk.segment
                    start_s = self._samples / self._service.sample_rate
                    await self._send(Segment(context_id=self.id, index=self._segments, start_s=start_s), None)
                    self._segments += 1
                self._samples += len(chunk.samples)
                await self._send_audio(await self._framing.push(chunk.samples))

    async def _send_audio(self, data: bytes) -> None:
        if not data:
            return
        if self._start.audio == "base64":
            encoded = base64.b64encode(data).decode()
            await self._send(Audio(context_id=self.id, bytes=len(data), audio=encoded), None)
        else:
            await self._send(Audio(context_id=self.id, bytes=len(data)), data)
