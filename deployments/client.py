"""Thin typed client for other Ray apps and scripts in the same cluster.

Hides what a raw handle makes easy to get wrong: a stream that is dropped without being cancelled runs to its end in
all stages, and one that ends without its last chunk was cut.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import TracebackType
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError
from ray.serve.exceptions import RequestCancelledError
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import FloatArray
from deployments.mailbox import OverloadedError, TextSource
from deployments.messages import FirstAudio, Recording, ScriptCall, SpeakCall, SpeechChunk, StreamCutError, seeded
from deployments.resuming import Resuming
from deployments.text_source import TextWriter
from deployments.voice_calls import VoiceCalls
from deployments.voices.refusal import VoiceRefusedError

DEFAULT_APP = "cosyvoice"
_OPEN_TIMEOUT_S = 30
_BROKEN = (RayTaskError, RayActorError, RequestCancelledError, TaskCancelledError, StreamCutError)


class SpeechStream:
    """Audio of one call, (N,) float32 chunks; use as a context manager, sync or async, and iterate once.

    Leaving the context cancels whatever was not heard. When the replica that answers is lost another one goes on from
    the last sample. Raises InputError for a wrong request, StreamCutError when the service broke off again and again.
    """

    def __init__(self, handle: DeploymentHandle, call: SpeakCall | ScriptCall) -> None:
        self._ended = False
        self.first_audio: FirstAudio | None = None
        """Where the time to the first chunk went, once that has come."""
        self._handle = handle
        self._resuming = Resuming(seeded(call))
        self._open(handle, self._resuming.call)

    def _open(self, handle: DeploymentHandle, call: SpeakCall | ScriptCall) -> None:
        method = "read" if isinstance(call, ScriptCall) else "speak"
        self._stream: Any = handle.options(method_name=method, stream=True, _by_reference=False).remote(call)

    def _failure(self, error: Exception) -> BaseException:
        if isinstance(error, RayActorError):
            return StreamCutError("the replica that answered was lost")
        return _cause(error) if isinstance(error, RayTaskError) else error

    def _pause_s(self, error: Exception) -> float:
        """How long to wait before going on elsewhere; raises what is to be raised when there is no going on."""
        lost = isinstance(error, RayActorError | StreamCutError) and not isinstance(error, RayTaskError)
        pause_s = self._resuming.pause_s() if lost and not self._ended else None
        if pause_s is None:
            raise self._failure(error) from None
        return pause_s

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def __aenter__(self) -> SpeechStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[FloatArray]:
        while True:
            try:
                for chunk in self._stream:
                    if self._note(chunk):
                        return
                    if len(chunk.samples):
                        yield chunk.samples
                raise StreamCutError("the service ended the stream before its last chunk")
            except _BROKEN as error:
                pause_s = self._pause_s(error)
            time.sleep(pause_s)
            self._open(self._handle, self._resuming.rest)

    async def __aiter__(self) -> AsyncIterator[FloatArray]:
        while True:
            try:
                async for chunk in self._stream:
                    if self._note(chunk):
                        return
                    if len(chunk.samples):
                        yield chunk.samples
                raise StreamCutError("the service ended the stream before its last chunk")
            except _BROKEN as error:
                pause_s = self._pause_s(error)
            await asyncio.sleep(pause_s)
            self._open(self._handle, self._resuming.rest)

    def read(self) -> FloatArray:
        """All that is left, as one array."""
        parts = list(self)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def cancel(self) -> None:
        """Stop all stages of this call, if it has not ended."""
        if not self._ended:
            self._ended = True
            self._stream.cancel()

    def _note(self, chunk: SpeechChunk) -> bool:
        self._resuming.heard(chunk)
        self._ended = self._ended or chunk.last
        self.first_audio = self.first_audio or chunk.first_audio
        return chunk.last


class WrittenSpeechStream(SpeechStream):
    """Audio of a text that is spoken while it is written; its pieces are taken as soon as there are any.

    Enter it with `with` or `async with`, then iterate once. Leaving stops the reading of pieces at the next one, and
    all stages at once. An error in the source of pieces is raised to whoever reads the audio.
    """

    def __init__(
        self, handle: DeploymentHandle, pieces: Iterable[str] | AsyncIterable[str], options: dict[str, Any]
    ) -> None:
        self._handle = handle
        self._pieces = pieces
        self._options = options
        self._stream = None
        self._ended = False
        self.first_audio = None
        # The text is lost with the replica that took it.
        self._resuming = Resuming(None)
        self._writer: TextWriter | None = None
        self._writing: asyncio.Task[None] | None = None
        self._text_error: Exception | None = None

    def __enter__(self) -> WrittenSpeechStream:
        if isinstance(self._pieces, AsyncIterable):
            raise TypeError("pieces of an async iterable need `async with`")
        source: TextSource = self._handle.open_text.remote().result(timeout_s=_OPEN_TIMEOUT_S)
        self._open(self._handle, SpeakCall(text=source, **self._options))
        self._writer = writer = TextWriter(source)
        threading.Thread(target=self._write, args=(writer, self._pieces), name="text", daemon=True).start()
        return self

    async def __aenter__(self) -> WrittenSpeechStream:
        async with asyncio.timeout(_OPEN_TIMEOUT_S):
            source: TextSource = await self._handle.open_text.remote()
        self._open(self._handle, SpeakCall(text=source, **self._options))
        self._writer = writer = await asyncio.to_thread(TextWriter, source)
        self._writing = asyncio.create_task(self._awrite(writer))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)

    def cancel(self) -> None:
        """Stop all stages of this call, if it has not ended, and forget its text."""
        if not self._ended and self._writer is not None:
            # A call that is cancelled before it has arrived never comes to drop it.
            self._writer.drop()
        super().cancel()

    def _failure(self, error: Exception) -> BaseException:
        return self._text_error or super()._failure(error)

    def _write(self, writer: TextWriter, pieces: Iterable[str]) -> None:
        try:
            for piece in pieces:
                if self._ended:
                    return
                writer.put(piece)
            writer.end()
        except Exception as error:  # noqa: BLE001 - raised to whoever reads the audio
            self._text_broke(error)

    async def _awrite(self, writer: TextWriter) -> None:
        try:
            if isinstance(self._pieces, AsyncIterable):
                async for piece in self._pieces:
                    await writer.aput(piece)
            else:
                rest = iter(self._pieces)
                while (next_piece := await asyncio.to_thread(next, rest, None)) is not None:
                    await writer.aput(next_piece)
            await writer.aend()
        except Exception as error:  # noqa: BLE001 - raised to whoever reads the audio
            self._text_broke(error)

    def _text_broke(self, error: Exception) -> None:
        # A text that nobody speaks any more is not the writer's fault: the audio says why.
        if self._ended or isinstance(error, InputError | RayActorError):
            return
        self._text_error = error
        self._stream.cancel()


class CosyVoiceClient(VoiceCalls):
    """Speaks through the running application; cheap to create, holds no state of its own."""

    def __init__(self, app_name: str = DEFAULT_APP, handle: DeploymentHandle | None = None) -> None:
        """Inside another Serve app pass the bound ingress handle; elsewhere the app is found by name.

        A script that is part of no cluster yet joins that of RAY_ADDRESS, or the one that runs on this machine.
        Raises ConnectionError when there is none.
        """
        if handle is None:
            if not ray.is_initialized():
                # Of its own accord Serve would start a new, empty cluster here.
                ray.init(address="auto", log_to_driver=False)
            handle = serve.get_app_handle(app_name)
        super().__init__(handle)

    def speak(self, text: str, **options: Any) -> SpeechStream:
        """Start speaking; options are the fields of `SpeakCall` (voice, prompt_audio, seed, ...)."""
        return SpeechStream(self._handle, SpeakCall(text=text, **options))

    def speak_stream(self, pieces: Iterable[str] | AsyncIterable[str], **options: Any) -> WrittenSpeechStream:
        """Speak a text while it is written, for example by a language model; cut it into pieces anywhere.

        Options are the fields of `SpeakCall` but `text`. A text that does not go on within the service's idle
        timeout ends with an InputError.
        """
        return WrittenSpeechStream(self._handle, pieces, options)

    def convert(self, source: bytes, **options: Any) -> SpeechStream:
        """The words of a recording (a file's content, in any container) in another voice.

        Options are those fields of `SpeakCall` that have to do with voice: voice, prompt_audio, seed, speed, realtime.
        """
        return SpeechStream(self._handle, SpeakCall(text=Recording(source), **options))

    def read(self, lines: Iterable[SpeakCall], **options: Any) -> SpeechStream:
        """Lines one after another, several of them made at once; options are the fields of `ScriptCall` but `lines`."""
        return SpeechStream(self._handle, ScriptCall(tuple(lines), **options))

    def sample_rate(self) -> int:
        """Hz of all audio. Not for use inside an event loop."""
        rate: int = self._handle.sample_rate.remote().result(timeout_s=30)
        return rate


def _cause(error: RayTaskError) -> BaseException:
    of_ours = InputError | OverloadedError | StreamCutError | VoiceRefusedError
    return error.cause if isinstance(error.cause, of_ours) else error
