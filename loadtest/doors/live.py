"""The live door: a WebSocket that takes text in pieces at the speed of a language model, and gives bare samples."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from loadtest.doors.door import Answer, DoorError
from loadtest.doors.wav import PcmReader
from loadtest.listener import Samples
from loadtest.prompt_audio import PromptAudio
from loadtest.record import ErrorKind, StageTime
from loadtest.request import PlannedRequest
from loadtest.written import written

_ROUTE = "/v1/audio/speech/stream"
_KINDS = {"invalid_request_error": ErrorKind.REFUSED}


class _LiveAnswer:
    declared_bytes: int | None = None

    def __init__(self, socket: ClientConnection, request_id: str, sample_rate: int) -> None:
        self.request_id = request_id
        self.sample_rate = sample_rate
        self.received_bytes = 0
        self.stages: tuple[StageTime, ...] = ()
        self._socket = socket
        self._reader = PcmReader(sample_rate)

    async def __aiter__(self) -> AsyncIterator[Samples]:
        try:
            while (event := json.loads(await self._socket.recv(decode=True)))["type"] != "done":
                if event["type"] == "error":
                    raise _failure(event["error"], begun=self.received_bytes > 0)
                if event["type"] == "first_audio" and not self.stages:
                    self.stages = tuple(StageTime(name, ms / 1000) for name, ms in event["parts"].items())
                elif event["type"] == "audio":
                    data = await self._socket.recv(decode=False)
                    self.received_bytes += len(data)
                    yield self._reader.samples(data)
        except ConnectionClosed as error:
            raise DoorError(ErrorKind.CUT, f"{type(error).__name__}: {error}") from None


class LiveDoor:
    """A connection and a context for each request."""

    def __init__(self, url: str, prompt: PromptAudio | None) -> None:
        """url: of the service, http or https."""
        self._url = url.rstrip("/").replace("http", "ws", 1) + _ROUTE
        self._prompt = prompt

    def speak(self, request: PlannedRequest) -> AbstractAsyncContextManager[Answer]:
        return self._speak(request)

    @asynccontextmanager
    async def _speak(self, request: PlannedRequest) -> AsyncIterator[Answer]:
        try:
            # Samples do not compress, and trying costs time.
            socket = await connect(self._url, compression=None, max_size=None)
        except (OSError, WebSocketException) as error:
            raise DoorError(ErrorKind.CONNECTION, f"{type(error).__name__}: {error}") from None
        async with socket:
            await socket.send(json.dumps(self._start(request)))
            started = json.loads(await socket.recv(decode=True))
            if started["type"] == "error":
                raise _failure(started["error"], begun=False)
            writing = asyncio.create_task(_write(socket, request))
            try:
                yield _LiveAnswer(socket, started["request_id"], started["sample_rate"])
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    def _start(self, request: PlannedRequest) -> dict[str, Any]:
        start = {
            "type": "start",
            "request_id": request.request_id,
            "response_format": "pcm",
            "seed": request.seed,
            "realtime": request.realtime,
        }
        if request.upload is None:
            return start | {"voice": request.voice}
        assert self._prompt is not None
        audio = base64.b64encode(self._prompt.variant(request.upload)).decode()
        return start | {"prompt_audio": audio, "prompt_text": self._prompt.transcript}

    async def close(self) -> None:
        """Nothing is held."""


async def _write(socket: ClientConnection, request: PlannedRequest) -> None:
    async for piece in written(request.text, request.writing):
        await socket.send(json.dumps({"type": "text", "text": piece}))
    await socket.send(json.dumps({"type": "end"}))


def _failure(error: dict[str, Any], *, begun: bool) -> DoorError:
    if error.get("code") == "overloaded":
        kind = ErrorKind.OVERLOADED
    else:
        kind = _KINDS.get(str(error.get("type")), ErrorKind.CUT if begun else ErrorKind.FAILED)
    return DoorError(kind, str(error.get("message")))
