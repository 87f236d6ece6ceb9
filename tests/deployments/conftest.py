"""The doors over a service without stages; files that need it otherwise have fixtures of the same names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cosyvoice_core.voice.encoder import VoiceEncoder
from deployments.args import AppArgs, Limits
from deployments.ingress.deployment import make_api
from tests.deployments.silent_stages import SilentStages
from tests.deployments.voice_replicas import EncoderHandle


@pytest.fixture(scope="module")
def shared_service() -> SilentStages:
    limits = Limits(max_body_bytes=100_000, max_text_chars=2000, max_unstreamed_chars=500, max_lexicon_entries=2)
    return SilentStages(AppArgs(limits=limits))


@pytest.fixture
def service(shared_service: SilentStages) -> SilentStages:
    shared_service.fail_before = shared_service.fail_after = None
    shared_service.calls.clear()
    return shared_service


@pytest.fixture
async def client(service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@pytest.fixture(scope="module")
def encoder(demo_checkpoint: Path) -> EncoderHandle:
    return EncoderHandle(VoiceEncoder.from_directory(demo_checkpoint))
