"""The live door without stages: what it refuses, and that a refusal costs no more than itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect

from deployments.args import AppArgs, Limits
from deployments.ingress.deployment import make_api
from tests.deployments.silent_stages import SilentStages

ROUTE = "/v1/audio/speech/stream"


@pytest.fixture(scope="module")
def service() -> SilentStages:
    return SilentStages(AppArgs(limits=Limits(live_contexts=2, live_idle_s=0.3)))


@pytest.fixture
def socket(service: SilentStages) -> Iterator[WebSocketTestSession]:
    # The test client cancels a door that has not ended at once when it hangs up, and then complains of that.
    with TestClient(make_api(service)) as client, suppress(CancelledError), client.websocket_connect(ROUTE) as session:
        yield session


def refusal(socket: WebSocketTestSession) -> dict[str, Any]:
    event = socket.receive_json()
    assert event["type"] == "error"
    assert set(event["error"]) >= {"message", "type"}
    return event


def start(socket: WebSocketTestSession, **options: object) -> None:
    socket.send_json({"type": "start", "voice": "demo_male", **options})


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("{", "Invalid JSON"),
        ("[]", "an object"),
        ('{"type": "sing"}', "'start'"),
        ('{"type": "text"}', "Field required"),
        ('{"type": "text", "text": "a", "x": 1}', "not permitted"),
        ('{"type": "start", "context_id": ""}', "at least 1"),
        ('{"type": "start", "voice": "nobody"}', "demo_male"),
        ('{"type": "start"}', "no voice"),
        ('{"type": "start", "voice": "demo_male", "mode": "vc"}', "speaks no text"),
        ('{"type": "start", "prompt_audio": "$"}', "base64"),
        ('{"type": "text", "text": "a"}', "not open"),
        ('{"type": "cancel", "context_id": "other"}', "'other' is not open"),
    ],
)
def test_what_is_wrong_is_told_and_the_connection_goes_on(
    socket: WebSocketTestSession, message: str, says: str
) -> None:
    socket.send_text(message)
    assert says in refusal(socket)["error"]["message"]
    start(socket)
    assert socket.receive_json()["type"] == "started"


def test_contexts_are_bounded_and_have_names_of_their_own(socket: WebSocketTestSession) -> None:
    start(socket)
    assert socket.receive_json()["context_id"] == "default"
    start(socket)
    assert "open already" in refusal(socket)["error"]["message"]
    start(socket, context_id="b")
    assert socket.receive_json()["context_id"] == "b"
    start(socket, context_id="c")
    assert "at most 2" in refusal(socket)["error"]["message"]
    socket.send_json({"type": "cancel"})
    assert socket.receive_json() == {"type": "cancelled", "context_id": "default"}
    start(socket, context_id="c")
    assert socket.receive_json()["type"] == "started"


def test_nothing_to_say_is_said_at_once(socket: WebSocketTestSession) -> None:
    start(socket, sample_rate=16000)
    assert socket.receive_json()["sample_rate"] == 16000
    socket.send_json({"type": "end"})
    events = [socket.receive_json()]
    while events[-1]["type"] == "audio":
        socket.receive_bytes()
        events.append(socket.receive_json())
    assert events[-1] == {"type": "done", "context_id": "default", "audio_s": 0.0}
    socket.send_json({"type": "text", "text": "too late"})
    assert "not open" in refusal(socket)["error"]["message"]


def test_silence_with_nothing_to_hear_closes_the_connection(socket: WebSocketTestSession) -> None:
    assert refusal(socket)["error"]["code"] == "idle"
    with pytest.raises(WebSocketDisconnect) as closing:
        socket.receive_json()
    assert closing.value.code == 1001


def test_binary_messages_are_not_understood(socket: WebSocketTestSession) -> None:
    socket.send_bytes(b"sound")
    with pytest.raises(WebSocketDisconnect) as closing:
        socket.receive_json()
    assert closing.value.code == 1003
