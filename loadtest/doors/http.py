"""The HTTP doors: the speech route (JSON or, with prompt audio, a multipart form), and CosyVoice's own routes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from typing import Any

import httpx

from loadtest.breakdown import HEADER, stages_of
from loadtest.doors.door import Answer, DoorError
from loadtest.doors.events import EventReader
from loadtest.doors.wav import MalformedAudioError, PcmReader, WavReader
from loadtest.listener import Samples
from loadtest.prompt_audio import PromptAudio
from loadtest.record import ErrorKind
from loadtest.request import PlannedRequest

_ROUTE = "/v1/audio/speech"


class HttpForm(StrEnum):
    """How the speech route shall answer."""

    WAV = "wav"
    PCM = "pcm"
    WHOLE = "whole"
    """A WAV that is sent when all of it is there."""
    SSE = "sse"
    """PCM in server-sent events."""


def _reader(form: HttpForm, sample_rate: int) -> PcmReader | EventReader:
    if form is HttpForm.SSE:
        return EventReader(sample_rate)
    return PcmReader(sample_rate) if form is HttpForm.PCM else WavReader()


class _HttpAnswer:
    def __init__(self, response: httpx.Response, request_id: str, form: HttpForm) -> None:
        length = response.headers.get("content-length")
        self.request_id = response.headers.get("x-request-id", request_id).partition(",")[0]
        self.declared_bytes = int(length) if length is not None else None
        self.received_bytes = 0
        self.stages = stages_of(response.headers.get(HEADER, ""))
        self._response = response
        rate = response.headers.get("x-sample-rate", "24000")
        self._reader = _reader(form, int(rate))

    @property
    def sample_rate(self) -> int:
        return self._reader.sample_rate

    async def __aiter__(self) -> AsyncIterator[Samples]:
        try:
            async for data in self._response.aiter_raw():
                self.received_bytes += len(data)
                yield self._reader.samples(data)
        except httpx.HTTPError as error:
            raise DoorError(ErrorKind.CUT, f"{type(error).__name__}: {error}") from None
        except MalformedAudioError as error:
            raise DoorError(ErrorKind.MALFORMED, str(error)) from None
        if not self._reader.whole:
            raise DoorError(ErrorKind.MALFORMED, "the audio ends within its header or a sample")
        if isinstance(self._reader, WavReader) and self._reader.declared_bytes is not None:
            # What the WAV says of itself counts too: a proxy may have closed a short body properly.
            self.declared_bytes = max(self.declared_bytes or 0, self._reader.declared_bytes)


class HttpDoor:
    """`POST /v1/audio/speech`, in one of its forms."""

    def __init__(self, client: httpx.AsyncClient, prompt: PromptAudio | None, form: HttpForm) -> None:
        self._client = client
        self._prompt = prompt
        self._form = form

    def speak(self, request: PlannedRequest) -> AbstractAsyncContextManager[Answer]:
        return self._speak(request)

    @asynccontextmanager
    async def _speak(self, request: PlannedRequest) -> AsyncIterator[Answer]:
        message = self._client.build_request("POST", _ROUTE, headers=_headers(request), **self._body(request))
        async with _answered(self._client, message) as response:
            yield _HttpAnswer(response, request.request_id, self._form)

    def _body(self, request: PlannedRequest) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "input": request.text,
            "seed": request.seed,
            "response_format": "wav" if self._form in (HttpForm.WAV, HttpForm.WHOLE) else "pcm",
            "stream": self._form is not HttpForm.WHOLE,
            "realtime": request.realtime,
        }
        if self._form is HttpForm.SSE:
            fields["stream_format"] = "sse"
        if request.upload is None:
            return {"json": {**fields, "voice": request.voice}}
        assert self._prompt is not None
        # A form knows text only, and writes truth in lower case.
        form = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in fields.items()}
        audio = self._prompt.variant(request.upload)
        if self._prompt.transcript:
            form["prompt_text"] = self._prompt.transcript
        return {"data": form, "files": {"prompt_audio": ("voice.wav", audio, "audio/wav")}}

    async def close(self) -> None:
        """The pool belongs to whoever made it."""


class OfficialDoor:
    """CosyVoice's own routes as its own client calls them: form fields in a GET, bare samples back."""

    def __init__(self, client: httpx.AsyncClient, prompt: PromptAudio | None) -> None:
        self._client = client
        self._prompt = prompt

    def speak(self, request: PlannedRequest) -> AbstractAsyncContextManager[Answer]:
        return self._speak(request)

    @asynccontextmanager
    async def _speak(self, request: PlannedRequest) -> AsyncIterator[Answer]:
        route, fields, files = self._call(request)
        message = self._client.build_request("GET", route, headers=_headers(request), data=fields, files=files)
        async with _answered(self._client, message) as response:
            yield _HttpAnswer(response, request.request_id, HttpForm.PCM)

    def _call(self, request: PlannedRequest) -> tuple[str, dict[str, str], dict[str, Any]]:
        fields = {"tts_text": request.text}
        if request.upload is None:
            assert request.voice is not None
            return "/inference_sft", fields | {"spk_id": request.voice}, {}
        assert self._prompt is not None
        file = {"prompt_wav": ("prompt_wav", self._prompt.variant(request.upload), "application/octet-stream")}
        if not self._prompt.transcript:
            return "/inference_cross_lingual", fields, file
        return "/inference_zero_shot", fields | {"prompt_text": self._prompt.transcript}, file

    async def close(self) -> None:
        """The pool belongs to whoever made it."""


def _headers(request: PlannedRequest) -> dict[str, str]:
    return {"x-request-id": request.request_id}


@asynccontextmanager
async def _answered(client: httpx.AsyncClient, message: httpx.Request) -> AsyncIterator[httpx.Response]:
    """The answer once it has begun, if it is audio."""
    try:
        response = await client.send(message, stream=True)
    except httpx.HTTPError as error:
        raise DoorError(ErrorKind.CONNECTION, f"{type(error).__name__}: {error}") from None
    try:
        if response.status_code != 200:
            raise await _refusal(response)
        yield response
    finally:
        await response.aclose()


async def _refusal(response: httpx.Response) -> DoorError:
    try:
        text = (await response.aread()).decode(errors="replace")
    except httpx.HTTPError as error:
        text = f"{type(error).__name__}: {error}"
    status = response.status_code
    if status in (429, 503):
        kind = ErrorKind.OVERLOADED
    elif 400 <= status < 500:
        kind = ErrorKind.REFUSED
    else:
        kind = ErrorKind.FAILED
    return DoorError(kind, f"{status}: {text[:200]}")
