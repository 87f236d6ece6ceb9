"""Names of voices: what a name means, at every door alike."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from contextlib import suppress

import numpy as np
import pytest
from starlette.testclient import TestClient

from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import VoicePrompt
from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from deployments.ingress.voices import VoiceRegistry
from tests.deployments.silent_stages import SilentStages


def voice(level: float) -> VoicePrompt:
    return VoicePrompt(np.full(192, level, np.float32))


async def test_another_name_means_the_voice_unless_a_voice_has_it() -> None:
    registry = VoiceRegistry(
        {"anna": voice(1), "coral": voice(2)}, 25, aliases={"alloy": "anna", "coral": "anna", "ash": "nobody"}
    )
    assert [registry.check(name) for name in ("anna", "alloy", "coral")] == ["anna", "anna", "coral"]
    assert (await registry.prompt("alloy")).speaker[0] == 1
    for missing in ("ash", "echo"):
        with pytest.raises(InputError, match="anna, coral"):
            registry.check(missing)
    assert [info.name for info in registry.infos()] == ["anna", "coral"]


async def test_the_websocket_knows_other_names() -> None:
    service = SilentStages(AppArgs(voice_aliases={"alloy": "demo_male"}))

    def started() -> list[str]:
        # The test client cancels a door that has not ended at once when it hangs up, and then complains of that.
        answers: list[str] = []
        with (
            TestClient(make_api(service)) as opened,
            suppress(CancelledError),
            opened.websocket_connect("/v1/audio/speech/stream") as socket,
        ):
            for name in ("alloy", "nobody"):
                socket.send_json({"type": "start", "voice": name, "context_id": name})
                answers.append(socket.receive_json()["type"])
        return answers

    assert await asyncio.to_thread(started) == ["started", "error"]
