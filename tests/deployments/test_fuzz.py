"""Made-up requests against the doors without stages: by the API's own description, and by what people try.

The description is what schemathesis reads: an answer that it does not name, in status, content type or shape, fails.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from deployments.args import AppArgs
from deployments.ingress.deployment import make_api
from tests.deployments.silent_stages import SilentStages, refusal

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
SPEECH = "/v1/audio/speech"
SERVICE = SilentStages(AppArgs())
DESCRIBED = schemathesis.openapi.from_asgi("/openapi.json", make_api(SERVICE))
OPERATIONS = [result.ok() for result in DESCRIBED.get_all_operations()]
MODES = [
    pytest.param(operation, mode, id=f"{operation.label}, {mode.value}")
    for operation in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    # Where nothing is given nothing can be wrong.
    if mode is GenerationMode.POSITIVE or operation.body or operation.query
]
MEGABYTE = 1 << 20


def fuzzed(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture
async def client() -> Any:
    transport = httpx.ASGITransport(make_api(SERVICE), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


@pytest.mark.parametrize(("operation", "mode"), MODES)
def test_every_answer_is_as_the_description_says(operation: Any, mode: GenerationMode) -> None:
    statuses: set[int] = set()

    @fuzzed(examples=25)
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        response = case.call()
        statuses.add(response.status_code)
        json_body = isinstance(case.body, dict) and case.media_type == "application/json"
        rejected = [negative_data_rejection] if mode is GenerationMode.NEGATIVE and json_body else []
        # 501 says that this service keeps no voices.
        faults = [] if response.status_code == 501 and "/voices" in operation.label else [not_a_server_error]
        case.validate_response(response, checks=CHECKS + faults + rejected)

    answered()
    assert statuses
    assert SERVICE.open == 0


@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "speed": st.floats(),
            "volume": st.floats(),
            "pause_s": st.floats(),
            "seed": st.integers(),
            "sample_rate": st.integers(-1, 10**7),
            "response_format": st.sampled_from(["mp3", "opus", "aac", "flac", "wav", "pcm", "ogg"]),
            "stream": st.booleans(),
            "stream_format": st.sampled_from(["audio", "sse"]),
            "input": st.text(),
            "instructions": st.text(),
            "lexicon": st.dictionaries(st.text(), st.text(), max_size=3),
            "sampling": st.dictionaries(st.sampled_from(["top_p", "top_k", "tau", "temperature"]), st.floats()),
        },
    )
)
@fuzzed(examples=100)
async def test_a_request_that_could_be_right_is_answered_or_refused(options: dict[str, Any]) -> None:
    transport = httpx.ASGITransport(make_api(SERVICE), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        # NaN and Infinity are no JSON, but Python's writes and reads them.
        body = json.dumps({"input": "Hello.", "voice": "demo_male", **options})
        response = await client.post(SPEECH, content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400)
    if response.status_code == 400:
        assert response.json()["error"]["message"]


def nested(depth: int, field: str = "lexicon") -> str:
    return f'{{"input": "Hello.", "voice": "demo_male", "{field}": {"[" * depth}{"]" * depth}}}'


def bodies() -> Iterator[tuple[str, bytes, str]]:
    """(name, body, a word of the answer)"""
    right = '"voice": "demo_male", "input": "Hello."'
    yield "no JSON", b"{'input': 'Hello.'}", "JSON"
    yield "cut off", b'{"input": "Hel', "JSON"
    yield "two objects", b"{}{}", "JSON"
    yield "another encoding", '{"input": "é"}'.encode("latin-1"), "JSON"
    yield "compressed", b"\x1f\x8b\x08" + bytes(100), "JSON"
    yield "10 MB of nothing", b" " * (10 * MEGABYTE), "JSON"
    yield "10 MB of zeros", bytes(10 * MEGABYTE), "JSON"
    yield "a list", b"[]", "body"
    yield "nested", nested(500).encode(), "lexicon"
    yield "nested deeply", nested(100_000).encode(), "JSON"
    yield "nested in what is not known", nested(500, "more").encode(), "more"
    yield "a number of 100,000 digits", f'{{{right}, "seed": {"9" * 100_000}}}'.encode(), "JSON"
    yield "a power", f'{{{right}, "seed": 1e400}}'.encode(), "seed"
    for field in ("speed", "volume", "pause_s"):
        for value in ("NaN", "Infinity", "-Infinity", "1e999", '"NaN"', "null"):
            if (field, value) != ("pause_s", "null"):
                yield f"{field} {value}", f'{{{right}, "{field}": {value}}}'.encode(), field
    for voice in (
        "../../../../etc/passwd",
        "..\\..\\windows",
        "/etc/passwd",
        "file:///etc/passwd",
        "demo_male/../demo_male",
        "demo_male\x00.pt",
        "%2e%2e%2fdemo_male",
        "$(id)",
        "\u202edemo",
        "x" * 200,
    ):
        yield f"voice {voice[:20]!r}", json.dumps({"input": "Hello.", "voice": voice}).encode(), "demo_female"
    yield "a long voice", json.dumps({"input": "Hello.", "voice": "x" * 201}).encode(), "200"
    yield "10 MB of text", json.dumps({"voice": "demo_male", "input": "a" * (10 * MEGABYTE)}).encode(), "200000"
    yield "blanks of all kinds", json.dumps({"voice": "demo_male", "input": " \t\r\n\u3000\u00a0"}).encode(), "empty"
    long = json.dumps({"voice": "demo_male", "input": "Hi.", "instructions": "x" * MEGABYTE})
    yield "1 MB of instructions", long.encode(), "at most 500"
    words = {f"word{number}": "x" for number in range(50_000)}
    yield "50,000 words", json.dumps({"voice": "demo_male", "input": "Hi.", "lexicon": words}).encode(), "lexicon"
    yield "no base64", b'{"input": "Hello.", "prompt_audio": "%%%"}', "base64"


@pytest.mark.parametrize(("body", "says"), [pytest.param(body, says, id=name) for name, body, says in bodies()])
async def test_broken_bodies_are_refused_with_what_is_allowed(
    client: httpx.AsyncClient, body: bytes, says: str
) -> None:
    tracemalloc.start()
    try:
        response = await client.post(SPEECH, content=body, headers={"content-type": "application/json"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert response.status_code == 400
    error = response.json()["error"]
    assert says in error["message"] + str(error["param"])
    assert len(response.content) < 4000
    # A body, its text, and what JSON makes of it.
    assert peak < 8 * len(body) + 8 * MEGABYTE


async def test_control_characters_are_text(client: httpx.AsyncClient) -> None:
    text = "Hello\x00 \x1b[31mthere\x07\u202e\ufeff.\x7f"
    response = await client.post(SPEECH, json={"input": text, "voice": "demo_male"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"--\r\n"),
        ("multipart/form-data; boundary=a", b"--a\r\n"),
        ("multipart/form-data; boundary=a", b"--b\r\n\r\n--b--"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--\r\n"),
        ("multipart/form-data; boundary=a", b"--a\r\n" + b"X: y\r\n" * 50_000 + b"\r\nx\r\n--a--\r\n"),
        ("multipart/form-data; boundary=" + "a" * 5000, b"--a"),
        ("application/x-www-form-urlencoded", b"input=Hello.&voice=demo_male"),
        ("text/plain", b"Hello."),
        ("", b"Hello."),
    ],
)
@pytest.mark.parametrize("path", [SPEECH, "/inference_sft"])
async def test_broken_forms_are_refused(client: httpx.AsyncClient, path: str, content_type: str, body: bytes) -> None:
    response = await client.post(path, content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [SPEECH, "/inference_zero_shot"])
async def test_forms_are_bounded(client: httpx.AsyncClient, path: str) -> None:
    many = {f"field{number}": "x" for number in range(2000)}
    files = [(f"file{number}", b"x") for number in range(50)]
    big = {"tts_text" if path != SPEECH else "input": "a" * (10 * MEGABYTE)}
    upload = {"other": b"x"}
    for form in ({"data": many, "files": upload}, {"files": files}, {"data": big, "files": upload}):
        response = await client.post(path, **form)  # type: ignore[arg-type]
        assert response.status_code == 400
        assert response.json()["error"]["message"]


@pytest.mark.parametrize("query", ["stages=maybe", "stages=", "stages=1&stages=x"])
async def test_a_wrong_query_is_refused_like_all_else(client: httpx.AsyncClient, query: str) -> None:
    assert "boolean" in refusal(await client.get(f"/health?{query}"), 400, "stages")


async def test_the_description_names_no_part_that_it_does_not_have(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for value in part.values():
                yield from references(value)
        elif isinstance(part, list):
            for value in part:
                yield from references(value)

    found = set(references(described))
    assert found
    for reference in found:
        place = described
        for name in reference.removeprefix("#/").split("/"):
            place = place[name]
