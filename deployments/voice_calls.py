"""Calls by handle about voices: list, save, look at, remove; each for programs without an event loop and with one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.errors import InputError
from deployments.voices.messages import NewVoice, VoiceDetails, VoiceInfo
from deployments.voices.refusal import VoiceRefusedError

_TIMEOUT_S = 120


class VoiceCalls:
    """The service's voices for whoever holds its handle; changes concern voices that everybody shares.

    All raise VoiceRefusedError that says why something cannot be done. Those that begin with `a` are for use inside an
    event loop, the others are not.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    def voices(self) -> list[VoiceInfo]:
        """All there are."""
        voices: list[VoiceInfo] = self._wait("voices")
        return voices

    async def avoices(self) -> list[VoiceInfo]:
        """All there are."""
        voices: list[VoiceInfo] = await self._answer("voices")
        return voices

    def voice(self, name: str) -> VoiceDetails:
        """One voice with its transcript and how good its recording was."""
        details: VoiceDetails = self._wait("voice", name)
        return details

    async def avoice(self, name: str) -> VoiceDetails:
        """One voice with its transcript and how good its recording was."""
        details: VoiceDetails = await self._answer("voice", name)
        return details

    def add_voice(
        self, name: str, audio: bytes | Path, transcript: str = "", *, consent: str = "", overwrite: bool = False
    ) -> VoiceDetails:
        """Save a voice; audio: 0.5 to 30 s of speech in any container. Raises InputError for what cannot be used."""
        new = NewVoice(name, _read(audio), transcript, consent, overwrite)
        details: VoiceDetails = self._wait("add_voice", new)
        return details

    async def aadd_voice(
        self, name: str, audio: bytes | Path, transcript: str = "", *, consent: str = "", overwrite: bool = False
    ) -> VoiceDetails:
        """Save a voice; audio: 0.5 to 30 s of speech in any container. Raises InputError for what cannot be used."""
        new = NewVoice(name, await asyncio.to_thread(_read, audio), transcript, consent, overwrite)
        details: VoiceDetails = await self._answer("add_voice", new)
        return details

    def remove_voice(self, name: str) -> None:
        """Remove a saved voice."""
        self._wait("remove_voice", name)

    async def aremove_voice(self, name: str) -> None:
        """Remove a saved voice."""
        await self._answer("remove_voice", name)

    def _wait(self, method: str, *args: object) -> Any:
        try:
            return getattr(self._handle, method).remote(*args).result(timeout_s=_TIMEOUT_S)
        except RayTaskError as error:
            raise _cause(error) from None

    async def _answer(self, method: str, *args: object) -> Any:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await getattr(self._handle, method).remote(*args)
        except RayTaskError as error:
            raise _cause(error) from None


def _read(audio: bytes | Path) -> bytes:
    return audio if isinstance(audio, bytes) else audio.read_bytes()


def _cause(error: RayTaskError) -> BaseException:
    return error.cause if isinstance(error.cause, InputError | VoiceRefusedError) else error
