"""The HTTP doors without Ray: what is refused before any stage works, and what failures look like."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.inputs import Mode
from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from deployments.ingress.service import SpeechService
from deployments.ingress.utterance import StageStalledError
from deployments.mailbox import OverloadedError
from deployments.messages import SpeakCall, StreamCutError
from deployments.quotas.ledger import QuotaError
from tests.deployments.silent_stages import SilentStages, refusal, speak


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"input": ""}, "input", "empty"),
        ({"input": " \n\t "}, "input", "empty"),
        ({"input": "x" * 2001}, "input", "at most 2000"),
        ({"input": "x" * 501, "stream": False}, "input", "at most 500"),
        ({"input": None}, "input", "string"),
        ({"voice": "nobody"}, "voice", "demo_female"),
        ({"voice": "../../etc/passwd"}, "voice", "demo_female"),
        ({"voice": None}, "voice", "demo_female"),
        ({"speed": 3}, "speed", "2"),
        ({"speed": "NaN"}, "speed", "finite"),
        ({"response_format": "ogg"}, "response_format", "'wav' or 'pcm'"),
        ({"seed": -1}, "seed", "0"),
        ({"seed": 2**64}, "seed", "less than or equal"),
        ({"mode": "sing"}, "mode", "zero_shot"),
        ({"mode": "vc"}, "mode", "zero_shot"),
        ({"lexicon": {"a": 1}}, "lexicon.a", "string"),
        ({"lexicon": {"a": "1", "b": "2", "c": "3"}}, "lexicon", "at most 2"),
        ({"instructions": "x" * 501}, "instructions", "at most 500"),
        ({"inputs": "typo"}, "inputs", "not permitted"),
        ({"pause_s": 11}, "pause_s", "10"),
        ({"language": "xx"}, "language", "'zh'"),
        ({"timestamps": "word", "stream_format": "sse"}, "timestamps", "'segment' or 'hop'"),
        ({"timestamps": "hop"}, None, "sse"),
        ({"mode": "instruct2"}, "instructions", "needs an instruction"),
        ({"mode": "zero_shot", "instructions": "slowly"}, "instructions", "takes none"),
        ({"prompt_text": "What was said."}, "prompt_text", "without prompt audio"),
        ({"lexicon": {" ": "b"}}, "lexicon", "1 to"),
    ],
)
async def test_wrong_fields_are_named_with_what_is_allowed(
    client: httpx.AsyncClient, service: SilentStages, body: dict[str, Any], param: str | None, says: str
) -> None:
    assert says in refusal(await speak(client, **body), 400, param)
    assert service.calls == []


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b"9" * 5000])
async def test_bodies_that_are_no_json_object(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/v1/audio/speech", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (400, 413)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("field", ["input", "instructions", "voice"])
async def test_half_a_character_is_text_or_a_wrong_name(client: httpx.AsyncClient, field: str) -> None:
    """JSON can hold what no UTF-8 can; the text front end replaces it."""
    body = json.dumps({"input": "Hello.", "voice": "demo_male", field: "Hello \ud800."})
    response = await client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    assert response.status_code == (400 if field == "voice" else 200)


async def test_voice_and_prompt_exclude_each_other(client: httpx.AsyncClient) -> None:
    response = await client.post(
        "/v1/audio/speech",
        data={"input": "Hello.", "voice": "demo_male"},
        files={"prompt_audio": ("voice.wav", b"RIFFdata", "audio/wav")},
    )
    assert "one of the two" in refusal(response, 400, "voice")


@pytest.mark.parametrize(
    ("data", "files", "param"),
    [
        ({"input": ["a", "b"]}, {}, "input"),
        ({"input": "a", "prompt_audio": "text"}, {"other": b"x"}, "prompt_audio"),
        ({"input": "a"}, {"input2": b"x"}, "input2"),
        ({"input": "a", "lexicon": "{"}, {"prompt_audio": b"x"}, "lexicon"),
    ],
)
async def test_wrong_forms(
    client: httpx.AsyncClient, data: dict[str, Any], files: dict[str, bytes], param: str
) -> None:
    upload = {name: ("f.wav", content, "audio/wav") for name, content in files.items()} or {
        "prompt_audio": ("f.wav", b"x", "audio/wav")
    }
    refusal(await client.post("/v1/audio/speech", data=data, files=upload), 400, param)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"text": "... !!! ???"}, "input"),
        ({"mode": Mode.ZERO_SHOT}, "prompt_text"),
        ({"mode": Mode.INSTRUCT2}, "instructions"),
        ({"mode": Mode.SFT, "instructions": "slowly"}, "instructions"),
        ({"speed": 2.5}, "speed"),
        ({"seed": -1}, "seed"),
        ({"lexicon": {"": "b"}}, "lexicon"),
    ],
)
async def test_prompt_audio_is_not_looked_at_for_a_request_that_is_wrong(changed: dict[str, Any], field: str) -> None:
    """There are no stages: whoever asked one for a voice would fail."""
    service = SpeechService(AppArgs(), vocoder=None, stages={})  # type: ignore[arg-type]
    call = SpeakCall(**{"text": "Hello.", "prompt_audio": b"RIFF", **changed})
    with pytest.raises(InputError) as caught:
        await anext(service.speak(call, "id"))
    assert caught.value.field == field


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_limit_is_refused_while_it_arrives(
    client: httpx.AsyncClient, service: SilentStages, declared: bool
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"voice": "demo_male", "input": "'
        for _ in range(1000):
            sent += 10_000
            yield b"x" * 10_000

    headers = {"content-type": "application/json"} | ({"content-length": "9999999"} if declared else {})
    response = await client.post("/v1/audio/speech", content=endless(), headers=headers)
    assert "100000 bytes" in refusal(response, 413, "body")
    assert service.calls == []


@pytest.mark.parametrize(
    ("error", "status", "param"),
    [
        (InputError("prompt_audio", "is silence", "speech"), 400, "prompt_audio"),
        (EngineError("not finite"), 500, None),
        (RuntimeError("secret detail"), 500, None),
        (BackPressureError(num_queued_requests=3, max_queued_requests=3), 429, None),
        (ActorDiedError(), 503, None),
    ],
)
async def test_failures_before_the_first_audio_are_errors_not_a_broken_200(
    client: httpx.AsyncClient, service: SilentStages, error: Exception, status: int, param: str | None
) -> None:
    service.fail_before = error
    message = refusal(await speak(client), status, param)
    assert "secret" not in message
    assert service.open == 0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverloadedError("no room", retry_after_s=1), 429),
        (QuotaError("requests", 2, retry_after_s=1), 429),
        (BackPressureError(num_queued_requests=3, max_queued_requests=3), 429),
        (ActorDiedError(), 503),
        (StreamCutError("cut"), 503),
        (StageStalledError("no audio"), 504),
    ],
)
async def test_a_refusal_is_no_fault_that_the_server_logs(service: SilentStages, error: Exception, status: int) -> None:
    """Whatever is raised through to the server fills its log with a traceback for each call of an overload."""
    service.fail_before = error
    transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await speak(client)).status_code == status


async def test_an_overloaded_service_says_when_to_try_again(client: httpx.AsyncClient, service: SilentStages) -> None:
    service.fail_before = OverloadedError("no room", retry_after_s=6.2)
    response = await speak(client)
    assert refusal(response, 429, None) == "no room"
    assert response.headers["retry-after"] == "7"
    assert response.json()["error"]["code"] == "overloaded"


async def test_a_failure_after_the_first_audio_never_looks_complete(
    client: httpx.AsyncClient, service: SilentStages
) -> None:
    service.fail_after = EngineError("broken")
    assert (await speak(client, stream=False)).status_code == 500
    assert service.open == 0


async def test_unknown_routes_and_methods_answer_in_the_same_shape(client: httpx.AsyncClient) -> None:
    refusal(await client.get("/nothing"), 404, None)
    refusal(await client.get("/v1/audio/speech"), 405, None)


@pytest.mark.parametrize(
    "body", [{}, {"seed": 1, "response_format": "mp3"}, {"seed": 1, "sample_rate": 16000}, {"resume_from_sample": -1}]
)
async def test_a_rest_that_cannot_fit_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await speak(client, **{"response_format": "pcm", "resume_from_sample": 7, **body})
    assert response.status_code == 400
    assert "resume_from_sample" in response.text
