"""Ingress replicas with a store of voices and a real voice encoder, but no Ray; what tests ask of them."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from cosyvoice_core.config import FlowConfig
from cosyvoice_core.voice.encoder import EncodedVoice
from cosyvoice_core.voice.encoder import VoiceEncoder as VoiceEncoderModel
from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from deployments.ingress.keys import KeyRing, hash_of, new_key
from deployments.ingress.voice_keeper import VoiceKeeper
from deployments.ingress.voices import VoiceRegistry
from deployments.voices.args import VoicesArgs
from deployments.voices.catalogue import Catalogue
from deployments.voices.store import VoiceStore
from tests.deployments.silent_stages import SilentStages, refusal

ACME, BETA = new_key(), new_key()
KEYS = {
    "keys": [
        {"name": "acme", "sha256": hash_of(ACME)},
        {"name": "beta", "sha256": hash_of(BETA), "voices": ["*", "acme:shared*"]},
    ]
}
PROMPTS = Path(__file__).parents[2] / "checkpoints" / "demo" / "prompts"
AUDIO = (PROMPTS / "demo_deep.wav").read_bytes()
TRANSCRIPT = (PROMPTS / "demo_deep.txt").read_text().strip()
PATH = "/v1/audio/voices"


class EncoderAnswer:
    """Stands for Serve's stream of the one answer."""

    def __init__(self, encode: Callable[[], EncodedVoice]) -> None:
        self._encode = encode

    async def __aiter__(self) -> AsyncIterator[EncodedVoice]:
        yield await asyncio.to_thread(self._encode)

    def cancel(self) -> None:
        """There is nothing left to stop when it is asked for: the one answer came, or failed."""


class EncoderHandle:
    """Stands for the handle of the VoiceEncoder deployment, which is another process; its model is the real one."""

    def __init__(self, model: VoiceEncoderModel) -> None:
        self._model = model
        self.encoded = 0

    def options(self, **_options: Any) -> EncoderHandle:
        return self

    def remote(self, audio: bytes) -> EncoderAnswer:
        self.encoded += 1
        return EncoderAnswer(partial(self._model.encode, audio))


@functools.cache
def loaded() -> SilentStages:
    """A service with the model's text front end and voices, which take a second to load."""
    return SilentStages(AppArgs())


def replica(folder: Path, encoder: EncoderHandle, **voices: Any) -> SilentStages:
    """An ingress replica with its doors, a copy of one that is loaded; `folder` is what it shares with others."""
    service = copy.copy(loaded())
    args = VoicesArgs(url=str(folder), **voices)
    catalogue = Catalogue(VoiceStore(str(folder), FlowConfig()), args)
    service.calls, service._stages = [], {"VoiceEncoder": encoder}  # type: ignore[dict-item]
    service.voices = VoiceRegistry(service.voices.models_own, service.token_rate, catalogue)
    service.voice_keeper = VoiceKeeper(service.voices, args, service._new_voice)
    return service


def client_of(service: SilentStages, key: str | None = None) -> httpx.AsyncClient:
    ring = KeyRing(None, yaml.safe_dump(KEYS)) if key else None
    transport = httpx.ASGITransport(make_api(service, ring), raise_app_exceptions=False)
    headers = {"x-api-key": key} if key else {}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)


async def save(client: httpx.AsyncClient, name: str = "anna", audio: bytes = AUDIO, **fields: str) -> httpx.Response:
    data = {"name": name, "transcript": TRANSCRIPT, **fields}
    return await client.post(PATH, data=data, files={"audio": ("voice.wav", audio, "audio/wav")})


async def names(client: httpx.AsyncClient) -> set[str]:
    return {voice["name"] for voice in (await client.get(PATH)).json()["voices"] if voice["saved"]}


def error_code(response: httpx.Response, status: int) -> str:
    refusal(response, status, "voice")
    code: str = response.json()["error"]["code"]
    return code
