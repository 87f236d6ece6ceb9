"""CosyVoice's own gRPC service through Serve's gRPC proxy and the five deployments, by a client of its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from ray import serve

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.encode import to_pcm16, wav_header
from cosyvoice_core.audio.resample import resample
from deployments.local import LocalService
from tests.deployments.official_client import OfficialMessages

pytestmark = pytest.mark.clients

TEXT = "The train leaves at nine in the morning."
LONG = "The train leaves at nine in the morning and arrives in the city late in the afternoon after many stops. "
SEED = {"x-seed": "5"}
MESSAGES = OfficialMessages()


@pytest.fixture(scope="module")
def channel(service: LocalService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc_port}") as channel:
        yield channel


@pytest.fixture
def infer(channel: grpc.Channel) -> Callable[..., bytes]:
    """As the official client: one request, the sound of all responses; it sends no metadata of its own."""

    def call(metadata: dict[str, str] | None = None, **request: Any) -> bytes:
        stream = MESSAGES.inference(channel)(
            MESSAGES.Request(**request), metadata=tuple((metadata or {}).items()), timeout=120
        )
        return b"".join(response.tts_audio for response in stream)

    return call


@pytest.fixture(scope="module")
def prompt(demo_checkpoint: Path) -> tuple[bytes, str]:
    """Samples as the protocol has them (16 bit, 16 kHz), and what is said."""
    file = demo_checkpoint / "prompts" / "demo_deep.wav"
    sound = decode_audio(file)
    return to_pcm16(resample(sound.samples, sound.rate, 16000)), file.with_suffix(".txt").read_text()


def test_all_modes_sound_as_over_http(
    service: LocalService, infer: Callable[..., bytes], prompt: tuple[bytes, str]
) -> None:
    samples, transcript = prompt
    text = {"tts_text": TEXT}
    saved = {**text, "spk_id": "demo_male"}
    transcribed = {**text, "prompt_text": transcript}
    instructed = {**saved, "instruct_text": "Speak slowly."}
    file = {"prompt_wav": ("prompt_wav", wav_header(16000, len(samples) // 2) + samples, "application/octet-stream")}
    calls: tuple[tuple[str, dict[str, str], bool, str], ...] = (
        ("sft_request", saved, False, "inference_sft"),
        ("zero_shot_request", transcribed, True, "inference_zero_shot"),
        ("cross_lingual_request", text, True, "inference_cross_lingual"),
        ("instruct_request", instructed, False, "inference_instruct"),
    )
    for kind, fields, prompted, route in calls:
        more = {"prompt_audio": samples} if prompted else {}
        heard = infer(SEED, **{kind: {**fields, **more}})
        over_http = httpx.request(
            "GET",
            f"{service.url}/{route}",
            data=fields,
            files=file if prompted else None,
            headers=SEED,
            timeout=120,
        )
        assert over_http.status_code == 200, over_http.text
        # Steps of several utterances are computed together, which may round otherwise.
        ours, theirs = (np.frombuffer(sound, "<i2").astype(int) for sound in (heard, over_http.content))
        assert ours.shape == theirs.shape, kind
        assert len(ours) > 24000, kind
        assert np.abs(ours - theirs).max() <= 33, kind
        assert 0.01 < np.sqrt(np.mean((ours / 32768) ** 2)) < 0.5


def test_sound_comes_while_it_is_made(channel: grpc.Channel) -> None:
    stream = MESSAGES.inference(channel)(
        MESSAGES.Request(sft_request={"tts_text": LONG, "spk_id": "demo_male"}), timeout=120
    )
    assert sum(len(response.tts_audio) > 0 for response in stream) > 3


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        ({"sft_request": {"tts_text": TEXT, "spk_id": "nobody"}}, grpc.StatusCode.INVALID_ARGUMENT, "demo_female"),
        ({"sft_request": {"tts_text": "... !!!", "spk_id": "demo_male"}}, grpc.StatusCode.INVALID_ARGUMENT, "input"),
        (
            {"cross_lingual_request": {"tts_text": TEXT, "prompt_audio": bytes(64000)}},
            grpc.StatusCode.INVALID_ARGUMENT,
            "silent",
        ),
        # Serve's proxy refuses it before it holds it.
        (
            {"cross_lingual_request": {"tts_text": TEXT, "prompt_audio": bytes(33 << 20)}},
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "larger",
        ),
    ],
)
def test_what_is_wrong_is_said_by_status(
    infer: Callable[..., bytes], request_: dict[str, Any], code: grpc.StatusCode, says: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(**request_)
    assert caught.value.code() is code
    assert says in caught.value.details()


def test_a_client_that_leaves_stops_the_stages(service: LocalService, channel: grpc.Channel) -> None:
    vocoder = serve.get_deployment_handle("Vocoder", service.app_name)
    request = MESSAGES.Request(sft_request={"tts_text": LONG * 40, "spk_id": "demo_male"})
    stream = MESSAGES.inference(channel)(request, timeout=300)
    next(stream)
    assert vocoder.info.remote().result(timeout_s=30).running
    stream.cancel()
    deadline = time.monotonic() + 30
    while vocoder.info.remote().result(timeout_s=30).running:
        assert time.monotonic() < deadline, "the vocoder still works for a client who left"
        time.sleep(0.05)


@serve.deployment(ray_actor_options={"num_cpus": 0})
class Neighbour:
    """Another application of the cluster."""

    def __call__(self) -> str:
        return "neighbour"


def test_beside_another_application_a_client_must_name_the_service(
    service: LocalService, infer: Callable[..., bytes]
) -> None:
    request = {"sft_request": {"tts_text": "Good morning.", "spk_id": "demo_male"}}
    try:
        serve.run(Neighbour.bind(), name="neighbour", route_prefix="/neighbour")
        assert infer({"application": service.app_name}, **request)
        deadline = time.monotonic() + 60
        # The proxy learns of the other application in its own time; until then there is one.
        while True:
            try:
                infer(**request)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.NOT_FOUND
                break
            assert time.monotonic() < deadline
    finally:
        serve.delete("neighbour")
