"""What the doors refuse whom, without Ray: keys, voices of others, quotas, web pages, slow bodies, strange texts."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import WebSocket

from cosyvoice_core.errors import InputError, shown
from deployments import exposure
from deployments.args import AppArgs, Limits, SecurityArgs
from deployments.ingress.authentication import caller_of
from deployments.ingress.deployment import make_api
from deployments.ingress.keys import KeyRing, hash_of, new_key
from deployments.ingress.service import SpeechService
from tests.deployments.test_http import SilentStages, refusal, speak

LIMITS = Limits(max_body_bytes=100_000, max_text_chars=2000, max_header_bytes=2048, body_timeout_s=0.2)
ACME, BETA = new_key(), new_key()
KEYS = {
    "keys": [
        {"name": "acme", "sha256": hash_of(ACME), "priority": 3, "voices": ["demo_m*"]},
        {"name": "beta", "sha256": hash_of(BETA), "requests_per_minute": 2, "max_streams": 5},
    ]
}
PAGE = "https://page.example"


class CountedStages(SilentStages):
    """As those, but with the real way through the quotas to the first utterance, which fails for lack of stages."""

    speak = SpeechService.speak  # type: ignore[assignment]


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def open_service() -> SilentStages:
    return SilentStages(AppArgs(limits=LIMITS))


@pytest.fixture(scope="module")
def listed_service() -> SilentStages:
    """Of a service that knows its pages and its name."""
    return SilentStages(AppArgs(limits=LIMITS, security=SecurityArgs(cors_origins=(PAGE,), allowed_hosts=("test",))))


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing(None, yaml.safe_dump(KEYS))


def client_of(service: SilentStages, keys: KeyRing | None = None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(make_api(service, keys), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def keyed(open_service: SilentStages, ring: KeyRing) -> AsyncIterator[httpx.AsyncClient]:
    open_service.calls.clear()
    async with client_of(open_service, ring) as client:
        yield client


@pytest.fixture
async def client(open_service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(open_service) as client:
        yield client


@pytest.fixture
async def listed(listed_service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(listed_service) as client:
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


async def connect(
    app: Any, headers: Iterable[tuple[bytes, bytes]] = (), path: str = "/talk"
) -> tuple[list[dict[str, Any]], str | None]:
    """Open a WebSocket as a server would: what came back, and who the door says it is."""
    sent: list[dict[str, Any]] = []
    met: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def talk(socket: WebSocket) -> None:
        met.append(caller_of(socket).name)
        await socket.accept()
        await socket.close()

    app.add_api_websocket_route("/talk", talk)
    scope = {"type": "websocket", "path": path, "headers": list(headers), "query_string": b"", "subprotocols": []}
    await app(scope, receive, send)
    return sent, met[0] if met else None


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


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://test.evil.example", "http://evil.example/test", ""]
)
async def test_web_pages_of_other_origins_are_refused(
    client: httpx.AsyncClient, open_service: SilentStages, origin: str
) -> None:
    open_service.calls.clear()
    headers = {"origin": origin, "content-type": "text/plain"}
    body = json.dumps({"input": "Hello.", "voice": "demo_male"})
    answer = await client.post("/v1/audio/speech", content=body, headers=headers)
    refusal(answer, 403, None)
    assert "access-control-allow-origin" not in answer.headers
    assert open_service.calls == []
    sent, _ = await connect(make_api(open_service), [(b"origin", origin.encode()), (b"host", b"test")])
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def test_the_services_own_page_may_call(client: httpx.AsyncClient) -> None:
    for origin in ("http://test", "https://test", "HTTP://TEST"):
        answer = await client.get("/v1/models", headers={"origin": origin})
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers


async def test_listed_origins_may_call_and_are_told_so_before_they_show_a_key(
    listed_service: SilentStages, ring: KeyRing
) -> None:
    async with client_of(listed_service, ring) as client:
        asks = {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        asked = await client.options("/v1/audio/speech", headers=asks)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == PAGE
        without = await client.get("/v1/models", headers={"origin": PAGE})
        assert without.status_code == 401
        assert without.headers["access-control-allow-origin"] == PAGE
        other = await client.options("/v1/audio/speech", headers={**asks, "origin": "https://evil.example"})
        refusal(other, 403, None)


@pytest.mark.parametrize("origins", [("example.com",), ("https://example.com/",), ("https://a b",), ("",)])
def test_origins_that_could_never_match_are_refused_at_start(origins: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        SecurityArgs(cors_origins=origins)


async def test_a_service_that_knows_its_names_is_not_called_by_others(listed: httpx.AsyncClient) -> None:
    assert [
        (await listed.get("/v1/models", headers={"host": host})).status_code
        for host in ("test", "TEST:8000", "evil.example", "test.evil.example", "", "[")
    ] == [200, 200, 403, 403, 403, 403]


async def test_headers_are_bounded(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models", headers={"x-more": "x" * 1000})).status_code == 200
    refusal(await client.get("/v1/models", headers={"x-more": "x" * 2048}), 431, None)


async def test_nobody_can_have_a_stream_run_on_without_a_listener(client: httpx.AsyncClient) -> None:
    refusal(await client.get("/v1/models", headers={"x-request-disconnect-disabled": "?1"}), 400, None)


async def test_answers_say_that_they_are_what_they_say(client: httpx.AsyncClient) -> None:
    for path in ("/v1/models", "/nothing"):
        assert (await client.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_a_body_that_does_not_come_is_given_up(client: httpx.AsyncClient, open_service: SilentStages) -> None:
    open_service.calls.clear()

    async def slow() -> AsyncIterator[bytes]:
        yield b'{"input": '
        await asyncio.sleep(3600)
        yield b"{}"

    answer = await client.post("/v1/audio/speech", content=slow(), headers={"content-type": "application/json"})
    assert "0.2 s" in refusal(answer, 408, "body")
    assert open_service.calls == []


async def test_time_is_only_limited_until_the_body_is_there(
    client: httpx.AsyncClient, open_service: SilentStages, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*_: object) -> dict[str, None]:
        await asyncio.sleep(0.5)
        return {}

    monkeypatch.setattr(open_service, "stage_infos", late)
    assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize("given", ["a b", 'a"b', "a\tb", "request x: first audio", "é", "x" * 65, ""])
async def test_request_ids_that_could_forge_a_log_line_are_replaced(client: httpx.AsyncClient, given: str) -> None:
    body = {"input": "Hello.", "voice": "demo_male"}
    headers = {"x-request-id": given.encode("latin-1")}
    answer = await client.post("/v1/audio/speech", json=body, headers=headers)  # type: ignore[arg-type]
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "body",
    [
        {"x" * 50_000: 1},
        {"\n\x1b[31mforged": 1},
        {"voice": "x\r\ny" * 40},
        {"lexicon": {"x\u2028" * 10_000: 1}},
        {"lexicon": {"x" * 20_000: "y"}},
        {"sample_rate": 10**4000},
        {"mode": "\x00" * 1000},
    ],
)
async def test_what_a_caller_sent_is_repeated_only_short_and_escaped(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await speak(client, **body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert len(answer.content) < 2000
    for text in (error["message"], error["param"]):
        assert text.isprintable()


async def test_names_of_form_fields_are_repeated_short_and_escaped(client: httpx.AsyncClient) -> None:
    name = "\x1b" + "x" * 5000
    answer = await client.post("/v1/audio/speech", data={"input": "Hi."}, files={name: b"x"})
    assert answer.status_code == 400
    assert len(answer.content) < 2000


def test_an_input_error_is_one_line_and_stays_the_same_on_its_way() -> None:
    import pickle

    error = InputError("a\nb" * 200, "said 'x\n\x00\u202e'" * 100, "more")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(error).isprintable()
    assert len(str(error)) < 700
    assert shown("a\\b\tc", 10) == "a\\b\\tc"
    assert shown("\n" * 5, 6) == "\\n\\n\\n…"


@pytest.mark.parametrize(
    ("host", "environment", "keyed", "says"),
    [
        ("127.0.0.1", {}, False, []),
        ("localhost", {}, False, []),
        ("::1", {"RAY_SERVE_ENABLE_HA_PROXY": "0"}, False, []),
        ("0.0.0.0", {}, True, []),
        ("0.0.0.0", {}, False, ["listens on 0.0.0.0"]),
        ("::", {}, False, ["listens on ::"]),
        ("example.com", {}, False, ["listens on example.com"]),
        (None, {}, False, []),
        (None, {"RAY_SERVE_ENABLE_HA_PROXY": "1"}, True, ["RAY_SERVE_ENABLE_HA_PROXY"]),
        ("127.0.0.1", {"RAY_SERVE_ENABLE_DIRECT_INGRESS": "1"}, False, ["and set API keys"]),
        ("0.0.0.0", {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}, False, ["listens on 0.0.0.0", "ALL addresses"]),
    ],
)
def test_a_service_that_strangers_reach_says_so(
    host: str | None, environment: dict[str, str], keyed: bool, says: list[str]
) -> None:
    found = exposure.warnings(host, environment, keyed=keyed)
    assert len(found) == len(says)
    for line, part in zip(found, says, strict=True):
        assert part in line


def test_grpc_for_all_without_keys_says_so() -> None:
    assert "gRPC" in exposure.warnings("127.0.0.1", {}, keyed=False, grpc_from_anywhere=True)[0]
    assert exposure.warnings("127.0.0.1", {}, keyed=True, grpc_from_anywhere=True) == []


@pytest.mark.parametrize("config", ["serve_config.yaml", "config/gpu.yaml", "config/four_gpus.yaml"])
def test_on_one_machine_the_service_listens_there_only(config: str) -> None:
    found = yaml.safe_load((Path(__file__).parents[2] / config).read_text())
    assert exposure.is_loopback(found["http_options"]["host"])
    # Serve has no host for gRPC.
    assert "grpc_options" not in found
