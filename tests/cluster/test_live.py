"""The live door through the five deployments: text in as it is written, audio out, several contexts, barge-in."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect

from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from tests.cluster.test_service import running, wait_until

TEXT = "The train leaves at nine in the morning. It is cold today."
LONG = "The train leaves at nine in the morning, and arrives late in the afternoon after many stops. " * 20


@pytest.fixture
async def socket(service: LocalService) -> AsyncIterator[ClientConnection]:
    async with connect(f"ws://{service.host}:{service.port}/v1/audio/speech/stream", max_size=None) as opened:
        yield opened


async def send(socket: ClientConnection, kind: str, **fields: object) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def start(socket: ClientConnection, **options: object) -> None:
    call = {"voice": "demo_female", "response_format": "pcm", "seed": 4, "realtime": False}
    await send(socket, "start", **call | options)


class Heard:
    """What has come of each context."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.events: list[dict[str, Any]] = []
        self.audio: dict[str, bytes] = {}

    async def until(self, kind: str, context_id: str = "default") -> dict[str, Any]:
        while True:
            event = json.loads(await self._socket.recv(decode=True))
            self.events.append(event)
            name = event["context_id"]
            if event["type"] == "audio":
                data = base64.b64decode(event["audio"]) if "audio" in event else await self._socket.recv()
                assert isinstance(data, bytes)
                assert len(data) == event["bytes"]
                self.audio[name] = self.audio.get(name, b"") + data
            if (event["type"], name) == (kind, context_id):
                return event
            assert event["type"] != "error", event

    def sound(self, context_id: str = "default") -> np.ndarray:
        return np.frombuffer(self.audio[context_id], "<i2").astype(np.float32) / 32768


async def test_pieces_sound_like_the_text_at_once(socket: ClientConnection, client: CosyVoiceClient) -> None:
    async with client.speak_stream([TEXT], voice="demo_female", seed=4, realtime=False) as stream:
        expected = np.concatenate([chunk async for chunk in stream])
    heard = Heard(socket)
    await start(socket)
    for at in range(0, len(TEXT), 7):
        await send(socket, "text", text=TEXT[at : at + 7])
    await send(socket, "end")
    done = await heard.until("done")
    assert heard.sound().shape == expected.shape
    np.testing.assert_allclose(heard.sound(), expected, atol=1e-3)
    assert done["audio_s"] == pytest.approx(len(expected) / 24000)
    segments = [event for event in heard.events if event["type"] == "segment"]
    assert [event["index"] for event in segments] == list(range(len(segments)))
    assert segments[0]["start_s"] == 0.0


async def test_audio_comes_while_the_text_is_written(socket: ClientConnection) -> None:
    heard = Heard(socket)
    await start(socket)
    # Long enough for blocks of text beside all of the prompt's speech, whose own text is shorter than that.
    written = "The train leaves at nine in the morning, and arrives in the city late, after many stops in small towns, "
    await send(socket, "text", text=f"{written}where friendly people wait for it with heavy boxes and old bags, and ")
    await heard.until("audio")
    await send(socket, "text", text="slowly enter.")
    await send(socket, "end")
    await heard.until("done")


async def test_what_is_flushed_is_spoken_without_waiting_for_more(socket: ClientConnection) -> None:
    heard = Heard(socket)
    await start(socket, audio="base64")
    await send(socket, "text", text="Good morning")
    await send(socket, "flush")
    first = await heard.until("flushed")
    assert first["audio_s"] > 0.3
    await send(socket, "text", text="It is cold today.")
    await send(socket, "end")
    done = await heard.until("done")
    assert done["audio_s"] > first["audio_s"] + 0.3
    assert len(heard.sound()) / 24000 == pytest.approx(done["audio_s"])


async def test_contexts_speak_side_by_side(socket: ClientConnection) -> None:
    heard = Heard(socket)
    for name, voice in (("a", "demo_female"), ("b", "demo_male")):
        await start(socket, context_id=name, voice=voice)
        await send(socket, "text", context_id=name, text=TEXT)
        await send(socket, "end", context_id=name)
    await heard.until("done", "a")
    if ("done", "b") not in [(event["type"], event["context_id"]) for event in heard.events]:
        await heard.until("done", "b")
    assert len(heard.sound("a")) > 24000
    assert len(heard.sound("b")) > 24000
    assert heard.audio["a"] != heard.audio["b"]


async def test_barge_in_stops_one_context_and_all_its_stages(socket: ClientConnection, service: LocalService) -> None:
    heard = Heard(socket)
    await start(socket)
    await send(socket, "text", text=LONG)
    await heard.until("audio")
    await send(socket, "cancel")
    await heard.until("cancelled")
    await asyncio.to_thread(wait_until, lambda: not any(running(service).values()), 5)
    # The name is free again, and the other utterance of the same speaker is heard at once.
    await start(socket)
    await send(socket, "text", text="Good morning.")
    await send(socket, "end")
    await heard.until("done")


async def test_a_client_that_leaves_stops_all_stages(service: LocalService) -> None:
    async with connect(f"ws://{service.host}:{service.port}/v1/audio/speech/stream") as socket:
        heard = Heard(socket)
        await start(socket)
        await send(socket, "text", text=LONG)
        await heard.until("audio")
        assert (await asyncio.to_thread(running, service))["Vocoder"] >= 1
    await asyncio.to_thread(wait_until, lambda: not any(running(service).values()), 5)


async def test_a_failure_ends_its_context_alone(socket: ClientConnection) -> None:
    heard = Heard(socket)
    await start(socket, context_id="good")
    await start(socket, context_id="bad")
    await send(socket, "text", context_id="bad", text="... !!!")
    await send(socket, "end", context_id="bad")
    while True:
        event = json.loads(await socket.recv(decode=True))
        if event["type"] == "error":
            break
    assert event["context_id"] == "bad"
    assert event["error"]["param"] == "input"
    await send(socket, "text", context_id="good", text="Good morning.")
    await send(socket, "end", context_id="good")
    await heard.until("done", "good")
