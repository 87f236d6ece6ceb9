"""What the doors refuse to whoever calls, without Ray: web pages, large headers, slow bodies, strange texts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from cosyvoice_core.errors import InputError, shown
from deployments.args import AppArgs, SecurityArgs
from deployments.ingress.deployment import make_api
from tests.deployments.guarded import LIMITS, PAGE, client_of, connect, key_ring
from tests.deployments.silent_stages import SilentStages, refusal, speak


@pytest.fixture(scope="module")
def open_service() -> SilentStages:
    return SilentStages(AppArgs(limits=LIMITS))


@pytest.fixture(scope="module")
def listed_service() -> SilentStages:
    """Of a service that knows its pages and its name."""
    return SilentStages(AppArgs(limits=LIMITS, security=SecurityArgs(cors_origins=(PAGE,), allowed_hosts=("test",))))


@pytest.fixture
async def client(open_service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(open_service) as client:
        yield client


@pytest.fixture
async def listed(listed_service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(listed_service) as client:
        yield client


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


async def test_listed_origins_may_call_and_are_told_so_before_they_show_a_key(listed_service: SilentStages) -> None:
    async with client_of(listed_service, key_ring()) as client:
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
