"""The HTTP doors without Ray: what is answered, and what is refused before any stage works."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from cosyvoice_core.errors import EngineError, InputError
from cosyvoice_core.inputs import Mode
from deployments.args import AppArgs, Limits
from deployments.ingress.deployment import make_api
from deployments.ingress.script import checked_lines
from deployments.ingress.service import SpeechService
from deployments.mailbox import OverloadedError
from deployments.messages import FirstAudio, ResumePoint, ScriptCall, SpeakCall, SpeechChunk, StageInfo

RATE = 24000


class SilentStages(SpeechService):
    """The real service with its checks, text front end and voices, but no stages: sound is a ramp.

    What is tested here is the door; the stages are tested where they run, in tests/cluster.
    """

    def __init__(self, args: AppArgs) -> None:
        super().__init__(args, vocoder=None, stages={})  # type: ignore[arg-type]
        self.calls: list[SpeakCall] = []
        self.fail_before: Exception | None = None
        self.fail_after: Exception | None = None
        self.open = 0
        self.without_replica: tuple[str, ...] = ()

    async def speak(
        self, call: SpeakCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        await self.look_for_voices(call)
        self.request_of(call, streamed=streamed)
        self.calls.append(call)
        async with aclosing(self._ramps(request_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def read(
        self, script: ScriptCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        checked_lines(script, self.args.limits, partial(self.request_of, streamed=True), streamed=streamed)
        async with aclosing(self._ramps(request_id)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _ramps(self, request_id: str) -> AsyncGenerator[SpeechChunk, None]:
        self.open += 1
        try:
            if self.fail_before:
                raise self.fail_before
            ramp = np.linspace(-0.5, 0.5, RATE // 10, dtype=np.float32)
            for number in range(3):
                told = FirstAudio(request_id, (("lm", 0.1), ("flow", 0.0255))) if number == 0 else None
                yield SpeechChunk(ramp, 0, first_audio=told)
                if self.fail_after:
                    raise self.fail_after
            yield SpeechChunk(np.zeros(0, np.float32), 0, last=True)
        finally:
            self.open -= 1

    async def stages_without_replica(self) -> tuple[str, ...]:
        return self.without_replica

    async def stage_infos(self) -> dict[str, StageInfo | None]:
        return {"SpeechLM": StageInfo("SpeechLM", "cpu", "float32", "torch", 1, 0), "Vocoder": None}


@pytest.fixture(scope="module")
def shared_service() -> SilentStages:
    limits = Limits(max_body_bytes=100_000, max_text_chars=2000, max_unstreamed_chars=500, max_lexicon_entries=2)
    return SilentStages(AppArgs(limits=limits))


@pytest.fixture
def service(shared_service: SilentStages) -> SilentStages:
    shared_service.fail_before = shared_service.fail_after = None
    shared_service.calls.clear()
    return shared_service


@pytest.fixture
async def client(service: SilentStages) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_api(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


async def speak(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/v1/audio/speech", json={"input": "Hello.", "voice": "demo_male", **body})


def refusal(response: httpx.Response, status: int, param: str | None) -> str:
    """The message of an error in OpenAI's shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    message: str = error["message"]
    return message


async def test_streamed_wav_has_one_header_and_all_samples(client: httpx.AsyncClient, service: SilentStages) -> None:
    response = await speak(client, response_format="wav")
    assert response.status_code == 200
    assert response.headers["content-type"] == "audio/wav"
    assert response.content.count(b"RIFF") == 1
    assert len(response.content) == 44 + 3 * 2 * (RATE // 10)
    assert service.open == 0


async def test_whole_wav_declares_its_length(client: httpx.AsyncClient) -> None:
    response = await speak(client, stream=False, response_format="wav")
    with wave.open(io.BytesIO(response.content)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (RATE, 1, 3 * (RATE // 10))
    assert int(response.headers["content-length"]) == len(response.content)


async def test_pcm_is_bare_samples(client: httpx.AsyncClient) -> None:
    response = await speak(client, response_format="pcm")
    assert response.headers["content-type"] == "audio/pcm"
    samples = np.frombuffer(response.content, "<i2")
    assert samples[0] == -16384
    assert len(samples) == 3 * (RATE // 10)


async def test_the_callers_request_id_comes_back_if_it_is_harmless(client: httpx.AsyncClient) -> None:
    body = {"input": "Hello.", "voice": "demo_male"}
    kept = await client.post("/v1/audio/speech", json=body, headers={"x-request-id": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    replaced = await client.post("/v1/audio/speech", json=body, headers={"x-request-id": "x" * 65})
    assert len(replaced.headers["x-request-id"]) == 32


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_says_where_the_time_to_its_first_audio_went(client: httpx.AsyncClient, stream: bool) -> None:
    response = await speak(client, stream=stream)
    assert response.headers["server-timing"] == "total;dur=125.5, lm;dur=100.0, flow;dur=25.5"


async def test_every_field_reaches_the_service(client: httpx.AsyncClient, service: SilentStages) -> None:
    await speak(
        client,
        speed=1.5,
        seed=7,
        instructions="slowly",
        mode="instruct2",
        lexicon={"a": "b"},
        realtime=False,
        pause_s=0.5,
        language="Chinese",
    )
    (call,) = service.calls
    assert call.language == "zh"
    assert (call.speed, call.seed, call.instructions, call.mode) == (1.5, 7, "slowly", "instruct2")
    assert (dict(call.lexicon), call.realtime, call.pause_s) == ({"a": "b"}, False, 0.5)


async def test_form_with_prompt_audio(client: httpx.AsyncClient, service: SilentStages) -> None:
    response = await client.post(
        "/v1/audio/speech",
        data={
            "input": "Hello.",
            "prompt_text": "What was said.",
            "speed": "0.8",
            "stream": "false",
            "lexicon": '{"a": "b"}',
        },
        files={"prompt_audio": ("voice.wav", b"RIFFdata", "audio/wav")},
    )
    assert response.status_code == 200, response.text
    (call,) = service.calls
    assert (call.prompt_audio, call.prompt_text, call.speed) == (b"RIFFdata", "What was said.", 0.8)
    assert dict(call.lexicon) == {"a": "b"}


@pytest.mark.parametrize("language", ["zh", "zh-CN", "Chinese", "ZH"])
async def test_names_that_other_servers_have_for_fields(
    client: httpx.AsyncClient, service: SilentStages, language: str
) -> None:
    await speak(
        client,
        voice=None,
        ref_audio="UklGRg==",
        ref_text="What was said.",
        task_type="zero_shot",
        language=language,
    )
    (call,) = service.calls
    assert (call.prompt_audio, call.prompt_text, call.mode) == (b"RIFF", "What was said.", Mode.ZERO_SHOT)
    assert call.language == "zh"


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


async def test_status_doors(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).json() == {"status": "ok", "model": "cosyvoice2", "sample_rate": RATE}
    health = (await client.get("/health?stages=true")).json()
    assert health["status"] == "degraded"
    assert health["stages"]["SpeechLM"]["engine"] == "torch"
    assert health["stages"]["Vocoder"] is None
    voices = (await client.get("/v1/audio/voices")).json()["voices"]
    assert {"demo_male", "demo_female"} <= {voice["name"] for voice in voices}
    assert all(voice["prompt_s"] > 1 for voice in voices)


async def test_ready_says_which_stage_is_waited_for(client: httpx.AsyncClient, service: SilentStages) -> None:
    service.without_replica = ("SpeechLM",)
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "starting", "waiting_for": ["SpeechLM"]})
    service.without_replica = ()
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "waiting_for": []})


async def test_unknown_routes_and_methods_answer_in_the_same_shape(client: httpx.AsyncClient) -> None:
    refusal(await client.get("/nothing"), 404, None)
    refusal(await client.get("/v1/audio/speech"), 405, None)


@pytest.mark.parametrize(
    ("route", "kinds", "fields"),
    [
        ("speech", {"application/json", "multipart/form-data"}, {"input", "prompt_audio", "timestamps", "language"}),
        ("conversions", {"application/json", "multipart/form-data"}, {"source_audio", "prompt_audio", "speed"}),
        ("scripts", {"application/json", "application/x-ndjson"}, {"lines", "voices", "pause_s"}),
    ],
)
async def test_the_api_description_names_all_bodies(
    client: httpx.AsyncClient, route: str, kinds: set[str], fields: set[str]
) -> None:
    described = (await client.get("/openapi.json")).json()
    content = described["paths"][f"/v1/audio/{route}"]["post"]["requestBody"]["content"]
    assert set(content) == kinds
    for kind in kinds - {"application/x-ndjson"}:
        assert fields <= set(content[kind]["schema"]["properties"])
    if "multipart/form-data" in kinds:
        files = {"prompt_audio", "source_audio"} & set(content["application/json"]["schema"]["properties"])
        assert {content["multipart/form-data"]["schema"]["properties"][name]["format"] for name in files} == {"binary"}
    assert "$defs" not in json.dumps(described)


def test_config_files_parse_into_typed_arguments() -> None:
    root = Path(__file__).parents[2]
    from ray.serve.schema import ServeDeploySchema

    from deployments.local import read_config

    for path in (root / "serve_config.yaml", root / "config" / "gpu.yaml"):
        config = read_config(path)
        ServeDeploySchema.model_validate(config)
        AppArgs.model_validate(config["applications"][0]["args"])
        names = [deployment["name"] for deployment in config["applications"][0]["deployments"]]
        assert names == ["Ingress", "VoiceEncoder", "SpeechLM", "FlowDecoder", "Vocoder"]


async def test_an_answer_names_its_seed_so_that_its_rest_can_be_asked_for(
    client: httpx.AsyncClient, service: SilentStages
) -> None:
    first = await speak(client, response_format="pcm")
    seed = int(first.headers["x-seed"])
    assert service.calls[-1].seed == seed
    rest = await speak(client, response_format="pcm", seed=seed, resume_from_sample=7)
    assert rest.headers["x-seed"] == str(seed)
    assert service.calls[-1].resume == ResumePoint(0, 7)


@pytest.mark.parametrize(
    "body", [{}, {"seed": 1, "response_format": "mp3"}, {"seed": 1, "sample_rate": 16000}, {"resume_from_sample": -1}]
)
async def test_a_rest_that_cannot_fit_is_refused(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await speak(client, **{"response_format": "pcm", "resume_from_sample": 7, **body})
    assert response.status_code == 400
    assert "resume_from_sample" in response.text
