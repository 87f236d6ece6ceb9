"""Thin typed client for other Ray apps and scripts in the same cluster.

Hides what a raw handle makes easy to get wrong: a stream that is dropped without being cancelled runs to its end in
all stages, and one that ends without its last chunk was cut.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import FloatArray
from deployments.messages import SpeakCall, SpeechChunk, StreamCutError, VoiceInfo

DEFAULT_APP = "cosyvoice"


class SpeechStream:
    """Audio of one call, (N,) float32 chunks; use as a context manager, sync or async, and iterate once.

    Leaving the context cancels whatever was not heard. Raises InputError for a wrong request, StreamCutError when
    the service broke off.
    """

    def __init__(self, handle: DeploymentHandle, call: SpeakCall) -> None:
        self._stream: Any = handle.options(method_name="speak", stream=True, _by_reference=False).remote(call)
        self._ended = False

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
        try:
            for chunk in self._stream:
                if self._note(chunk):
                    return
                yield chunk.samples
        except RayTaskError as error:
            raise _cause(error) from None
        raise StreamCutError("the service ended the stream before its last chunk")

    async def __aiter__(self) -> AsyncIterator[FloatArray]:
        try:
            async for chunk in self._stream:
                if self._note(chunk):
                    return
                yield chunk.samples
        except RayTaskError as error:
            raise _cause(error) from None
        raise StreamCutError("the service ended the stream before its last chunk")

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
        self._ended = self._ended or chunk.last
        return chunk.last


class CosyVoiceClient:
    """Speaks through the running application; cheap to create, holds no state of its own."""

    def __init__(self, app_name: str = DEFAULT_APP, handle: DeploymentHandle | None = None) -> None:
        """Inside another Serve app pass the bound ingress handle; elsewhere the app is found by name."""
        self._handle = handle if handle is not None else serve.get_app_handle(app_name)

    def speak(self, text: str, **options: Any) -> SpeechStream:
        """Start speaking; options are the fields of `SpeakCall` (voice, prompt_audio, seed, ...)."""
        return SpeechStream(self._handle, SpeakCall(text=text, **options))

    def voices(self) -> list[VoiceInfo]:
        """Saved voices. Not for use inside an event loop."""
        voices: list[VoiceInfo] = self._handle.voices.remote().result(timeout_s=30)
        return voices

    def sample_rate(self) -> int:
        """Hz of all audio. Not for use inside an event loop."""
        rate: int = self._handle.sample_rate.remote().result(timeout_s=30)
        return rate


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, InputError | StreamCutError) else error
