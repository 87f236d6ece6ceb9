"""The client of the HTTP door: what it sends, what it makes of answers, and how it tells failures apart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from cosyvoice_core.audio.encode import to_pcm16, wav_header
from loadtest.doors.door import DoorError
from loadtest.doors.http import HttpDoor, HttpForm
from loadtest.prompt_audio import PromptAudio
from loadtest.record import ErrorKind, StageTime
from loadtest.request import PlannedRequest

PCM = to_pcm16(np.linspace(-0.5, 0.5, 2400, dtype=np.float32))
REQUEST = PlannedRequest(
    number=7,
    request_id="loadtest-x-7",
    door="http-wav",
    language="en",
    length="short",
    text="Hello.",
    voice_kind="known",
    voice="demo_female",
    upload=None,
    seed=5,
    realtime=False,
)
Answer = Callable[[httpx.Request], httpx.Response]


def door(answer: Answer, prompt: PromptAudio | None = None, form: HttpForm = HttpForm.WAV) -> HttpDoor:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test")
    return HttpDoor(client, prompt, form)


async def heard(opened: HttpDoor, request: PlannedRequest = REQUEST) -> tuple[int, Any]:
    async with opened.speak(request) as answer:
        count = 0
        async for samples in answer:
            count += len(samples)
        return count, answer


def streamed(*parts: bytes, **headers: str) -> Answer:
    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return lambda _request: httpx.Response(200, content=body(), headers=headers)


async def test_json_body_and_request_id() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return streamed(wav_header(24000, 2400), PCM)(request)

    assert (await heard(door(answer, form=HttpForm.WHOLE)))[0] == 2400
    assert asked[0].headers["x-request-id"] == "loadtest-x-7"
    assert json.loads(asked[0].content) == {
        "input": "Hello.",
        "voice": "demo_female",
        "seed": 5,
        "response_format": "wav",
        "stream": False,
        "realtime": False,
    }


async def test_a_new_voice_is_a_form_with_its_recording(demo_checkpoint: Any) -> None:
    prompt = PromptAudio.from_file(demo_checkpoint / "prompts" / "demo_deep.wav")
    bodies: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["content-type"].startswith("multipart/form-data")
        bodies.append(request.content)
        return streamed(PCM)(request)

    upload = replace(REQUEST, voice=None, voice_kind="new", upload=3)
    await heard(door(answer, prompt, form=HttpForm.PCM), upload)
    assert prompt.variant(3) in bodies[0]
    assert prompt.transcript.encode() in bodies[0]
    assert b'name="realtime"\r\n\r\nfalse' in bodies[0]
    assert b'name="voice"' not in bodies[0]


async def test_the_answers_headers_are_read() -> None:
    answer = streamed(
        PCM[:1001],
        PCM[1001:],
        **{
            "x-sample-rate": "22050",
            "x-request-id": "abc, abc",
            "server-timing": 'total;dur=120, lm;dur=100.5;desc="language, model", flow;dur=20',
        },
    )
    count, found = await heard(door(answer, form=HttpForm.PCM))
    assert count == 2400
    assert (found.sample_rate, found.request_id, found.received_bytes) == (22050, "abc", len(PCM))
    assert found.stages == (StageTime("lm", 0.1005), StageTime("flow", 0.02))
    assert found.declared_bytes is None


async def test_a_wav_that_declares_more_than_came_is_seen_although_the_body_ended_properly() -> None:
    _, found = await heard(door(streamed(wav_header(24000, 9999) + PCM)))
    assert found.declared_bytes == 44 + 2 * 9999
    assert found.received_bytes == 44 + len(PCM)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.REFUSED),
        (404, ErrorKind.REFUSED),
        (429, ErrorKind.OVERLOADED),
        (503, ErrorKind.OVERLOADED),
        (500, ErrorKind.FAILED),
        (504, ErrorKind.FAILED),
    ],
)
async def test_refusals_have_their_kind_and_the_services_words(status: int, kind: ErrorKind) -> None:
    refused = door(lambda _request: httpx.Response(status, json={"error": {"message": "because"}}))
    with pytest.raises(DoorError, match="because") as caught:
        await heard(refused)
    assert caught.value.kind is kind


async def test_no_connection_and_a_broken_one_are_told_apart() -> None:
    def unreachable(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async def breaking() -> AsyncIterator[bytes]:
        yield PCM
        raise httpx.RemoteProtocolError("peer closed connection")

    with pytest.raises(DoorError) as caught:
        await heard(door(unreachable))
    assert caught.value.kind is ErrorKind.CONNECTION
    with pytest.raises(DoorError) as caught:
        await heard(door(lambda _request: httpx.Response(200, content=breaking()), form=HttpForm.PCM))
    assert caught.value.kind is ErrorKind.CUT


@pytest.mark.parametrize("body", [b'{"not": "audio at all"}', wav_header(24000)[:30], wav_header(24000) + PCM[:-1]])
async def test_what_is_no_audio_is_malformed(body: bytes) -> None:
    with pytest.raises(DoorError) as caught:
        await heard(door(streamed(body)))
    assert caught.value.kind is ErrorKind.MALFORMED
