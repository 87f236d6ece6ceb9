"""What the doors refuse to those without a key, or beyond what their key allows, without Ray."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from deployments.ingress.keys import KeyRing, hash_of
from deployments.ingress.service import SpeechService
from tests.deployments.guarded import ACME, BETA, LIMITS, bearer, client_of, connect, key_ring
from tests.deployments.silent_stages import SilentStages, refusal, speak


class CountedStages(SilentStages):
    """As those, but with the real way through the quotas to the first utterance, which fails for lack of stages."""

    speak = SpeechService.speak  # type: ignore[assignment]


@pytest.fixture(scope="module")
def open_service() -> SilentStages:
    return SilentStages(AppArgs(limits=LIMITS))


@pytest.fixture
def ring() -> KeyRing:
    return key_ring()


@pytest.fixture
async def keyed(open_service: SilentStages, ring: KeyRing) -> AsyncIterator[httpx.AsyncClient]:
    open_service.calls.clear()
    async with client_of(open_service, ring) as client:
        yield client


@pytest.fixture
async def client(open_service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(open_service) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        bearer(ACME[:-1]),
        bearer(hash_of(ACME)),
        {"authorization": f"Basic {ACME}"},
        {"authorization": ACME},
        {"x-api-key": "acme"},
        {**bearer(ACME), "x-api-key": BETA},
    ],
)
async def test_without_a_valid_key_every_answer_is_the_same_401(
    keyed: httpx.AsyncClient, open_service: SilentStages, headers: dict[str, str]
) -> None:
    first = await keyed.post("/v1/audio/speech", headers=headers, content=b"{")
    assert "no valid API key" in refusal(first, 401, None)
    assert first.headers["www-authenticate"] == "Bearer"
    for path in (
        "/v1/audio/voices",
        "/v1/models",
        "/docs",
        "/openapi.json",
        "/nothing",
        "http://test//health",
        "/health/",
        "/Health",
    ):
        answer = await keyed.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (401, first.content)
    assert open_service.calls == []


async def test_those_without_a_key_are_counted(
    open_service: SilentStages, ring: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    monkeypatch.setattr(open_service.metrics, "refused", reasons.append)
    async with client_of(open_service, ring) as keyed:
        assert (await keyed.get("/v1/audio/voices")).status_code == 401
        assert (await keyed.get("/health")).status_code == 200
        assert (await keyed.get("/v1/audio/voices", headers=bearer(ACME))).status_code == 200
    assert reasons == ["key"]


@pytest.mark.parametrize("headers", [bearer(ACME), {"authorization": f"bearer  {ACME} "}, {"x-api-key": ACME}])
async def test_a_valid_key_lets_in_and_sets_caller_and_priority(
    keyed: httpx.AsyncClient, open_service: SilentStages, headers: dict[str, str]
) -> None:
    keyed.headers.update(headers)
    assert (await speak(keyed)).status_code == 200
    (call,) = open_service.calls
    assert (call.caller.name, call.priority) == ("acme", 3)


async def test_every_door_knows_its_caller(keyed: httpx.AsyncClient, open_service: SilentStages, ring: KeyRing) -> None:
    """Whatever speaks must carry the caller: without, voices and quotas would be anyone's."""
    keyed.headers.update(bearer(ACME))
    answer = await keyed.post("/inference_sft", data={"tts_text": "Hello.", "spk_id": "demo_male"})
    assert (answer.status_code, open_service.calls[-1].caller.name) == (200, "acme")
    refusal(await keyed.post("/inference_sft", data={"tts_text": "Hello.", "spk_id": "demo_female"}), 400, "voice")
    source = {"source_audio": ("a.wav", b"RIFF", "audio/wav")}
    answer = await keyed.post("/v1/audio/conversions", data={"voice": "demo_male"}, files=source)
    assert (answer.status_code, open_service.calls[-1].caller.name) == (200, "acme")
    refusal(await keyed.post("/v1/audio/conversions", data={"voice": "demo_female"}, files=source), 400, "voice")
    script = {"lines": [{"text": "Hello.", "voice": "demo_male"}, {"text": "Hello.", "voice": "demo_female"}]}
    refusal(await keyed.post("/v1/audio/scripts", json=script), 400, "lines.1.voice")
    start = {"type": "start", "voice": "demo_female"}
    for key, told in ((ACME, "error"), (BETA, "started")):
        sent = await live(make_api(open_service, ring), key, start)
        assert [message["type"] for message in sent] == [told]


async def test_probes_need_no_key_and_nothing_else_does_without_keys(
    keyed: httpx.AsyncClient, client: httpx.AsyncClient, open_service: SilentStages
) -> None:
    for path in ("/health", "/ready"):
        assert (await keyed.get(path)).status_code != 401
        assert (await keyed.post(path)).status_code == 401
    assert (await keyed.get("/health?stages=true")).status_code == 401
    assert (await keyed.get("/health?stages=true", headers=bearer(ACME))).status_code == 200
    assert (await speak(client)).status_code == 200
    assert open_service.calls[-1].caller.name == "anyone"


async def test_neither_keys_nor_their_hashes_are_logged(
    keyed: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for key in (ACME, BETA, "wrong" + ACME):
            await keyed.get("/v1/audio/voices", headers=bearer(key))
    for secret in (ACME, BETA, hash_of(ACME), hash_of(BETA)):
        assert secret not in caplog.text


async def live(app: Any, key: str, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What the live door answers to these messages; the client leaves when there is an answer to each."""
    answers: list[dict[str, Any]] = []
    answered = asyncio.Event()
    incoming = [{"type": "websocket.connect"}]
    incoming += [{"type": "websocket.receive", "text": json.dumps(message)} for message in messages]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        await answered.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        if message.get("text"):
            answers.append(json.loads(message["text"]))
            if len(answers) == len(messages):
                answered.set()

    scope = {"type": "websocket", "path": "/v1/audio/speech/stream", "query_string": b"", "subprotocols": []}
    await app({**scope, "headers": [(b"x-api-key", key.encode())]}, receive, send)
    return answers


async def test_a_websocket_without_a_valid_key_is_refused_before_it_opens(
    open_service: SilentStages, ring: KeyRing
) -> None:
    for headers in ([], [(b"authorization", b"Bearer wrong")]):
        sent, caller = await connect(make_api(open_service, ring), headers)
        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]
        assert caller is None
    sent, caller = await connect(make_api(open_service, ring), [(b"authorization", f"Bearer {ACME}".encode())])
    assert sent[0]["type"] == "websocket.accept"
    assert caller == "acme"
    # What is open to probes is so for their method only.
    sent, _ = await connect(make_api(open_service, ring), path="/health")
    assert sent[0]["type"] == "websocket.close"


async def test_a_voice_of_others_is_answered_as_one_that_does_not_exist(keyed: httpx.AsyncClient) -> None:
    keyed.headers.update(bearer(ACME))
    named = (await keyed.get("/v1/audio/voices")).json()["voices"]
    assert [voice["name"] for voice in named] == ["demo_male"]
    theirs = refusal(await speak(keyed, voice="demo_female"), 400, "voice")
    missing = refusal(await speak(keyed, voice="demo_nobody"), 400, "voice")
    assert theirs.replace("demo_female", "X") == missing.replace("demo_nobody", "X")
    assert "demo_female" not in refusal(await speak(keyed, voice=None), 400, "voice")
    assert (await speak(keyed, voice="demo_male")).status_code == 200
    keyed.headers.update(bearer(BETA))
    assert (await speak(keyed, voice="demo_female")).status_code == 200


async def test_beyond_its_quota_a_key_gets_429_that_says_which_and_when(ring: KeyRing) -> None:
    async with client_of(CountedStages(AppArgs(limits=LIMITS)), ring) as client:
        client.headers.update(bearer(BETA))
        # What is wrong costs nothing; what fails inside does.
        assert [(await speak(client, voice="nobody")).status_code for _ in range(3)] == [400] * 3
        assert [(await speak(client)).status_code for _ in range(2)] == [500] * 2
        answer = await speak(client)
        assert "2 requests per minute" in refusal(answer, 429, None)
        assert answer.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        # Of others nothing was used.
        client.headers.update(bearer(ACME))
        assert (await speak(client)).status_code == 500
