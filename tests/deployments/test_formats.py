"""Formats of the speech door: what OpenAI's API has, streamed and whole, as audio and as events."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.limits import AudioLimits
from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from deployments.ingress.framing import MEDIA_TYPES
from tests.deployments.silent_stages import RATE, SilentStages, refusal, speak

SECONDS = 0.3
ANY = AudioLimits(min_seconds=0.01, min_rate=1)


@pytest.fixture(scope="module")
def service() -> SilentStages:
    return SilentStages(AppArgs())


@pytest.fixture
async def client(service: SilentStages) -> Any:
    service.fail_before = service.fail_after = None
    transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


def events(text: str) -> list[dict[str, Any]]:
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block[block.index("data: ") :].removeprefix("data: ")) for block in blocks]


def ids(text: str) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", [name for name in MEDIA_TYPES if name != "pcm"])
async def test_every_format_holds_all_the_sound(client: httpx.AsyncClient, name: str, stream: bool) -> None:
    response = await speak(client, response_format=name, stream=stream)
    assert response.status_code == 200
    assert response.headers["content-type"] == MEDIA_TYPES[name]  # type: ignore[index]
    assert ("content-length" in response.headers) is not stream
    assert decode_audio(response.content, limits=ANY).seconds == pytest.approx(SECONDS, abs=0.1)


async def test_mp3_is_what_clients_get_who_do_not_say(client: httpx.AsyncClient) -> None:
    assert (await speak(client)).headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("name", list(MEDIA_TYPES))
async def test_events_carry_the_same_bytes_and_what_was_used(client: httpx.AsyncClient, name: str) -> None:
    audio = (await speak(client, response_format=name)).content
    response = await speak(client, response_format=name, stream_format="sse")
    assert response.headers["content-type"].startswith("text/event-stream")
    *deltas, done = events(response.text)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    carried = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    # A container may number its streams at random.
    assert carried == audio if name != "opus" else len(carried) == len(audio)
    assert done["type"] == "speech.audio.done"
    used = done["usage"]
    assert used["output_tokens"] == round(SECONDS * 25)
    assert used["input_tokens"] > 0
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]


async def test_events_are_numbered_by_samples_where_the_rest_can_be_asked_for(client: httpx.AsyncClient) -> None:
    chunk = RATE // 10
    response = await speak(client, response_format="pcm", stream_format="sse")
    assert ids(response.text) == [chunk, 2 * chunk, 3 * chunk]
    assert ids((await speak(client, response_format="mp3", stream_format="sse")).text) == []


async def test_a_client_that_was_cut_asks_for_what_follows_an_event(
    client: httpx.AsyncClient, service: SilentStages
) -> None:
    body = {"input": "Hello.", "voice": "demo_male", "response_format": "pcm", "stream_format": "sse"}

    async def after(last: str, **more: object) -> httpx.Response:
        return await client.post("/v1/audio/speech", json=body | more, headers={"last-event-id": last})

    response = await after("4800", seed=7)
    assert response.status_code == 200
    assert (service.calls[-1].resume.samples, service.calls[-1].seed) == (4800, 7)
    assert ids(response.text)[0] == 4800 + RATE // 10
    refusal(await after("4800"), 400, None)
    refusal(await after("4800", seed=7, response_format="mp3"), 400, None)
    for wrong in ("", "x", "-1", "9" * 13):
        refusal(await after(wrong, seed=7), 400, "last-event-id")


async def test_a_failure_amid_events_is_told_in_one(client: httpx.AsyncClient, service: SilentStages) -> None:
    service.fail_after = RuntimeError("secret detail")
    first, last = events((await speak(client, stream_format="sse", response_format="pcm")).text)
    assert first["type"] == "speech.audio.delta"
    assert last["type"] == "error"
    assert "secret" not in last["error"]["message"]
    assert service.open == 0


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
async def test_another_rate_is_said_and_kept(client: httpx.AsyncClient, rate: int) -> None:
    response = await speak(client, response_format="wav", stream=False, sample_rate=rate)
    assert response.headers["x-sample-rate"] == str(rate)
    heard = decode_audio(response.content, limits=ANY)
    assert heard.rate == rate
    assert heard.seconds == pytest.approx(SECONDS, abs=0.02)


async def test_volume_is_a_factor_that_never_wraps_around(client: httpx.AsyncClient) -> None:
    plain, half, loud = [
        np.frombuffer((await speak(client, response_format="pcm", volume=volume)).content, "<i2").astype(int)
        for volume in (1, 0.5, 4)
    ]
    np.testing.assert_allclose(half, plain / 2, atol=1)
    np.testing.assert_allclose(loud, np.clip(plain * 4, -32768, 32767), atol=4)


async def test_a_voice_may_be_an_object_as_openai_writes_it(client: httpx.AsyncClient) -> None:
    assert (await speak(client, voice={"id": "demo_female"})).status_code == 200
    refusal(await speak(client, voice={"id": "demo_female", "x": 1}), 400, "voice")


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"response_format": "ogg"}, "response_format", "'mp3'"),
        ({"sample_rate": 44100}, "sample_rate", "48000"),
        ({"volume": -1}, "volume", "greater than or equal to 0"),
        ({"volume": 5}, "volume", "less than or equal to 4"),
        ({"stream_format": "sse", "stream": False}, None, "stream=true"),
    ],
)
async def test_what_is_not_offered_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None, says: str
) -> None:
    assert says in refusal(await speak(client, **body), 400, param)


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["cosyvoice2"]
    assert (await client.get("/v1/models/cosyvoice2")).json()["object"] == "model"
    refusal(await client.get("/v1/models/other"), 404, "model")


def test_the_rate_of_the_double_is_the_models(service: SilentStages) -> None:
    assert service.sample_rate == RATE
