"""The HTTP doors without Ray: what is answered."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path

import httpx
import numpy as np
import pytest

from cosyvoice_core.inputs import Mode
from deployments.args import AppArgs
from deployments.messages import ResumePoint
from tests.deployments.silent_stages import RATE, SilentStages, speak


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
