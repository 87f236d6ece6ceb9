"""OpenAI's own Python library against the service: formats, streams, events, options, errors."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import yaml
from ray import serve

from deployments.app import quotas
from deployments.args import AppArgs, SecurityArgs
from deployments.ingress.deployment import Ingress
from deployments.ingress.keys import hash_of, new_key
from deployments.local import LocalService
from tests.cluster.heard import Sound, assert_same_sound, sound_of, wav_of

pytestmark = pytest.mark.clients

FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
TEXT = "Good morning, how are you today."
VOICE = "demo_female"
SEED = 5
KEY, POOR = new_key(), new_key()


@pytest.fixture(scope="module")
def expected(service: LocalService) -> Sound:
    return wav_of(service.url, TEXT, VOICE, SEED)


@pytest.fixture
def client(service: LocalService) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=f"{service.url}/v1", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture
async def async_client(service: LocalService) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="none", base_url=f"{service.url}/v1", max_retries=0, timeout=120) as client:
        yield client


def request(**more: Any) -> dict[str, Any]:
    extra = {"seed": SEED, **more.pop("extra_body", {})}
    return {"model": "cosyvoice2", "input": TEXT, "voice": VOICE, "extra_body": extra, **more}


@pytest.mark.parametrize("response_format", FORMATS)
def test_every_format_whole_and_streamed(
    client: openai.OpenAI, expected: Sound, tmp_path: Path, response_format: Any
) -> None:
    whole = client.audio.speech.create(**request(response_format=response_format, extra_body={"stream": False}))
    assert_same_sound(sound_of(whole.content, response_format), expected, response_format)
    file = tmp_path / "speech"
    speech = client.audio.speech.with_streaming_response
    with speech.create(**request(response_format=response_format)) as streamed:
        streamed.stream_to_file(file)
    assert_same_sound(sound_of(file.read_bytes(), response_format), expected, response_format)


@pytest.mark.parametrize("response_format", FORMATS)
async def test_every_format_asynchronously(
    async_client: openai.AsyncOpenAI, expected: Sound, response_format: Any
) -> None:
    speech = async_client.audio.speech.with_streaming_response
    async with speech.create(**request(response_format=response_format)) as streamed:
        data = b"".join([chunk async for chunk in streamed.iter_bytes()])
    assert_same_sound(sound_of(data, response_format), expected, response_format)


@pytest.mark.parametrize("response_format", FORMATS)
def test_events(client: openai.OpenAI, expected: Sound, response_format: Any) -> None:
    speech = client.audio.speech.with_streaming_response
    with speech.create(**request(response_format=response_format, stream_format="sse")) as streamed:
        lines = [line for line in streamed.iter_lines() if line.startswith("data: ")]
    *deltas, done = (json.loads(line.removeprefix("data: ")) for line in lines)
    assert {delta["type"] for delta in deltas} == {"speech.audio.delta"}
    data = b"".join(base64.b64decode(delta["audio"]) for delta in deltas)
    assert_same_sound(sound_of(data, response_format), expected, response_format)
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"] > 0


def test_a_voice_by_name_by_id_and_by_openais_name(client: openai.OpenAI, expected: Sound) -> None:
    """`alloy` is an alias that the config gives."""
    voices: tuple[Any, ...] = (VOICE, {"id": VOICE}, "alloy")
    for voice in voices:
        heard = client.audio.speech.create(**request(voice=voice, response_format="pcm"))
        assert_same_sound(sound_of(heard.content, "pcm"), expected)


def test_instructions_and_speed(client: openai.OpenAI, service: LocalService, expected: Sound) -> None:
    instructed = client.audio.speech.create(**request(instructions="Speak slowly.", response_format="pcm"))
    heard = sound_of(instructed.content, "pcm")
    assert_same_sound(heard, wav_of(service.url, TEXT, VOICE, SEED, instructions="Speak slowly."))
    assert heard.shape != expected.shape or np.abs(heard - expected).max() > 0.01
    fast = client.audio.speech.create(**request(speed=1.6, response_format="pcm"))
    assert len(sound_of(fast.content, "pcm")) == pytest.approx(len(expected) / 1.6, rel=0.02)


async def test_models_are_listed(client: openai.OpenAI, async_client: openai.AsyncOpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["cosyvoice2"]
    assert [model.id async for model in async_client.models.list()] == ["cosyvoice2"]
    assert client.models.retrieve("cosyvoice2").id == "cosyvoice2"
    with pytest.raises(openai.NotFoundError, match="cosyvoice2"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"voice": "nobody"}, "voice"),
        ({"input": ""}, "input"),
        ({"speed": 9}, "speed"),
        ({"response_format": "ogg"}, "response_format"),
        ({"extra_body": {"typo": 1}}, "typo"),
    ],
)
def test_what_is_wrong_is_a_bad_request(client: openai.OpenAI, wrong: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.audio.speech.create(**request(**wrong))
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


class TestWithKeys:
    """Real doors with keys and a quota, before the stages of the shared service."""

    @pytest.fixture(scope="class")
    def url(self, service: LocalService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
        file = tmp_path_factory.mktemp("keys") / "keys.yaml"
        poor = {"name": "poor", "sha256": hash_of(POOR), "requests_per_minute": 1}
        file.write_text(yaml.safe_dump({"keys": [{"name": "acme", "sha256": hash_of(KEY)}, poor]}))
        args = AppArgs(security=SecurityArgs(keys_file=str(file), quota_timeout_s=60))
        stages = [
            serve.get_deployment_handle(name, service.app_name)
            for name in ("VoiceEncoder", "SpeechLM", "FlowDecoder", "Vocoder")
        ]
        ingress = serve.deployment(serve.ingress()(Ingress), name="Ingress", ray_actor_options={"num_cpus": 0.1})
        try:
            serve.run(ingress.bind(args, *stages, quotas()), name="openai", route_prefix="/openai")
            yield f"{service.url}/openai/v1"
        finally:
            serve.delete("openai")

    @staticmethod
    def client(url: str, key: str) -> openai.OpenAI:
        return openai.OpenAI(api_key=key, base_url=url, max_retries=0, timeout=120)

    def test_a_key_lets_in_and_a_wrong_one_does_not(self, url: str) -> None:
        with self.client(url, KEY) as client:
            assert client.audio.speech.create(**request()).content
        with self.client(url, new_key()) as stranger, pytest.raises(openai.AuthenticationError) as caught:
            stranger.audio.speech.create(**request())
        assert caught.value.code == "invalid_api_key"

    def test_beyond_its_quota_it_is_told_when_to_come_back(self, url: str) -> None:
        with self.client(url, POOR) as client:
            client.audio.speech.create(**request())
            with pytest.raises(openai.RateLimitError) as caught:
                client.audio.speech.create(**request())
        assert caught.value.code == "rate_limit_exceeded"
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
