"""Handle calls from another process of the same Ray cluster, with a complete text or one that is being written.

Needs Ray and the service's own client, which are imported only when such a door is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from loadtest.doors.door import Answer, DoorError
from loadtest.listener import Samples
from loadtest.prompt_audio import PromptAudio
from loadtest.record import ErrorKind, StageTime
from loadtest.request import PlannedRequest
from loadtest.written import written

if TYPE_CHECKING:
    from deployments.client import CosyVoiceClient, SpeechStream


class _HandleAnswer:
    declared_bytes: int | None = None

    def __init__(self, stream: SpeechStream, sample_rate: int, request_id: str) -> None:
        self.sample_rate = sample_rate
        self.request_id = request_id
        self.received_bytes = 0
        self._stream = stream

    @property
    def stages(self) -> tuple[StageTime, ...]:
        timing = self._stream.first_audio
        return () if timing is None else tuple(StageTime(name, seconds) for name, seconds in timing.parts)

    async def __aiter__(self) -> AsyncIterator[Samples]:
        try:
            async for chunk in self._stream:
                if self._stream.first_audio is not None:
                    self.request_id = self._stream.first_audio.request_id
                self.received_bytes += chunk.nbytes
                yield chunk
        except Exception as error:  # noqa: BLE001 - whatever a service raises, its kind is told
            raise _as_door_error(error, begun=self.received_bytes > 0) from None


class HandleDoor:
    """`CosyVoiceClient.speak`, or `speak_stream` with the text in pieces."""

    def __init__(self, client: CosyVoiceClient, sample_rate: int, prompt: PromptAudio | None, *, text_in: bool) -> None:
        self._client = client
        self._sample_rate = sample_rate
        self._prompt = prompt
        self._text_in = text_in

    @classmethod
    async def connect(cls, app_name: str, prompt: PromptAudio | None, *, text_in: bool) -> HandleDoor:
        """Raises what Serve raises when there is no such application in the cluster this process is part of."""
        from deployments.client import CosyVoiceClient

        client = await asyncio.to_thread(CosyVoiceClient, app_name)
        return cls(client, await asyncio.to_thread(client.sample_rate), prompt, text_in=text_in)

    def speak(self, request: PlannedRequest) -> AbstractAsyncContextManager[Answer]:
        return self._speak(request)

    @asynccontextmanager
    async def _speak(self, request: PlannedRequest) -> AsyncIterator[Answer]:
        options: dict[str, Any] = {"seed": request.seed, "realtime": request.realtime}
        if request.upload is None:
            options["voice"] = request.voice
        else:
            assert self._prompt is not None
            options |= {"prompt_audio": self._prompt.variant(request.upload), "prompt_text": self._prompt.transcript}
        stream: SpeechStream
        if self._text_in:
            stream = self._client.speak_stream(written(request.text, request.writing), **options)
        else:
            stream = self._client.speak(request.text, **options)
        opened = False
        try:
            async with stream:
                opened = True
                yield _HandleAnswer(stream, self._sample_rate, request.request_id)
        except Exception as error:
            if opened:
                raise
            raise _as_door_error(error, begun=False) from None

    async def close(self) -> None:
        """Nothing is held."""


def _as_door_error(error: Exception, *, begun: bool) -> DoorError:
    from cosyvoice_core.errors import InputError
    from deployments.mailbox import OverloadedError

    if isinstance(error, InputError):
        kind = ErrorKind.REFUSED
    elif isinstance(error, OverloadedError):
        kind = ErrorKind.OVERLOADED
    else:
        kind = ErrorKind.CUT if begun else ErrorKind.FAILED
    return DoorError(kind, f"{type(error).__name__}: {error}")
