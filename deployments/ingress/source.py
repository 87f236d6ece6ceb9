"""A recording that is to be spoken in another voice, as speech tokens, piece by piece, from whichever encoder lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.inputs import IntArray
from deployments.args import PlaybackArgs
from deployments.messages import Recording, SourceTokens, StreamCutError
from deployments.stage import hops_of


async def source_tokens(
    recording: Recording, encoder: DeploymentHandle, playback: PlaybackArgs, first: int = 0
) -> AsyncGenerator[IntArray, None]:
    """(P,) int32 of each piece from number `first` on; what came is not computed again when an encoder is lost.

    Raises InputError for a recording that cannot be used, and what broke last when replicas were lost too often in a
    row; playback says how often, see `deployments.ingress.utterance.audio_of`.
    """
    failures = 0
    while True:
        try:
            silence_s = playback.silence_timeout_s
            asked = hops_of(SourceTokens, encoder, "source_tokens", recording.audio, first, silence_s=silence_s)
            async with asked as pieces:
                async for piece in pieces:
                    failures = 0
                    first += 1
                    yield piece.ids
            return
        except (RayActorError, StreamCutError):
            failures += 1
            if failures > playback.max_replays:
                raise
        if failures > 1:
            await asyncio.sleep(playback.replay_pause_s * 2 ** (failures - 2))


class ReadAhead:
    """Reads what arrives while the one before is in use; use as a context manager, which ends the reading."""

    def __init__(self, tokens: AsyncGenerator[IntArray, None]) -> None:
        self._tokens = tokens
        self._arrived: asyncio.Queue[IntArray | Exception | None] = asyncio.Queue()

    async def __aenter__(self) -> ReadAhead:
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Whether `next` has an answer."""
        return not self._arrived.empty()

    async def next(self) -> IntArray | None:
        """The next tokens, None when there are no more. Raises what ended the reading."""
        arrived = await self._arrived.get()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived

    async def _read(self) -> None:
        try:
            async with aclosing(self._tokens):
                async for ids in self._tokens:
                    self._arrived.put_nowait(ids)
            self._arrived.put_nowait(None)
        except Exception as error:  # noqa: BLE001 - raised to whoever asks for the next
            self._arrived.put_nowait(error)
