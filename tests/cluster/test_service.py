"""The service as a user meets it: five deployments in processes of their own, a real server, a real client."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import time
import wave
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from ray import serve

from cosyvoice_core.errors import InputError
from cosyvoice_core.synthesis import Synthesizer
from cosyvoice_core.utterance import SpeechRequest
from deployments.args import AppArgs
from deployments.client import CosyVoiceClient
from deployments.local import LocalService, read_config
from deployments.messages import AudioHop, StageInfo, UtteranceTask
from deployments.stage import hops_of

CONFIG = Path(__file__).parents[2] / "serve_config.yaml"
STAGES = ("VoiceEncoder", "SpeechLM", "FlowDecoder", "Vocoder")
SENTENCE = "Good morning, how are you today."
LONG = "The train leaves at nine in the morning and arrives in the city late in the afternoon after many stops."


@pytest.fixture(scope="module")
def synthesizer(service: LocalService) -> Synthesizer:
    """The offline oracle, planning as the service is configured to."""
    arguments = AppArgs.model_validate(read_config(CONFIG)["applications"][0]["args"])
    return Synthesizer.from_pretrained(
        arguments.model_source(), limits=arguments.split.limits(), hops=arguments.hops.plan()
    )


def stage_info(service: LocalService, stage: str) -> StageInfo:
    handle = serve.get_deployment_handle(stage, service.app_name)
    info: StageInfo = handle.info.remote().result(timeout_s=30)
    return info


def running(service: LocalService) -> dict[str, int]:
    return {stage: stage_info(service, stage).running for stage in STAGES}


def wait_until(true: Callable[[], bool], timeout_s: float) -> float:
    """Seconds until the condition held; fails after `timeout_s`."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < timeout_s, "the condition did not come true in time"
        time.sleep(0.02)
    return time.monotonic() - began


def speak(service: LocalService, **body: object) -> httpx.Response:
    request = {"input": SENTENCE, "voice": "demo_female", "seed": 1, "response_format": "wav", **body}
    return httpx.post(f"{service.url}/v1/audio/speech", json=request, timeout=120)


def pcm(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def test_every_stage_has_a_process_of_its_own(service: LocalService) -> None:
    processes = {stage_info(service, stage).process for stage in STAGES}
    assert len(processes | {os.getpid()}) == len(STAGES) + 1
    health = httpx.get(f"{service.url}/health?stages=true", timeout=30).json()
    assert health["status"] == "ok"
    assert set(health["stages"]) == set(STAGES)


def test_a_sentence_becomes_a_playable_file(service: LocalService) -> None:
    response = speak(service, stream=False)
    assert response.status_code == 200, response.text
    with wave.open(io.BytesIO(response.content)) as sound:
        seconds = sound.getnframes() / sound.getframerate()
        samples = pcm(sound.readframes(sound.getnframes()))
    assert 0.8 < seconds < 6
    assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.5


async def test_first_audio_leaves_while_the_language_model_still_writes(
    service: LocalService, synthesizer: Synthesizer
) -> None:
    """24 s of speech, so that the model's writing lasts many times longer than the first hop's way to the listener."""
    request = SpeechRequest(text=LONG, voice=synthesizer.voice("demo_male"), seed=2)
    utterance = next(synthesizer.planner.utterances(request))
    task = UtteranceTask("long", replace(utterance, min_tokens=600, max_tokens=600))
    vocoder = serve.get_deployment_handle("Vocoder", service.app_name)
    heard = ids = 0
    running_at_first: int | None = None
    async with hops_of(AudioHop, vocoder, "synthesize", task, silence_s=60) as hops:
        async for hop in hops:
            heard += len(hop.samples)
            ids += len(hop.ids)
            if heard and running_at_first is None:
                info = await serve.get_deployment_handle("SpeechLM", service.app_name).info.remote()
                running_at_first = info.running
                assert ids < 100
    assert running_at_first == 1
    assert (ids, heard) == (600, 600 * 960)


def test_the_service_says_what_the_offline_synthesizer_says(client: CosyVoiceClient, synthesizer: Synthesizer) -> None:
    request = SpeechRequest(text=SENTENCE, voice=synthesizer.voice("demo_female"), seed=5)
    expected = np.concatenate(list(synthesizer.stream(request)))
    with client.speak(SENTENCE, voice="demo_female", seed=5) as stream:
        actual = stream.read()
    assert actual.shape == expected.shape
    # Rounding moves the pitch, and adds up in the phase.
    assert np.abs(actual - expected).max() < 1e-3


def test_sixteen_at_once_all_complete_and_sound_as_alone(service: LocalService) -> None:
    alone = speak(service, stream=False).content

    async def together() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=300) as web:
            body = {"input": SENTENCE, "voice": "demo_female", "stream": False, "response_format": "wav"}
            return await asyncio.gather(
                *(web.post(f"{service.url}/v1/audio/speech", json={**body, "seed": 1 + n % 4}) for n in range(16))
            )

    responses = asyncio.run(together())
    assert [response.status_code for response in responses] == [200] * 16
    for number, response in enumerate(responses):
        if number % 4 == 0:
            assert np.abs(pcm(response.content[44:]) - pcm(alone[44:])).max() < 1e-3
    assert len({response.content for response in responses[:4]}) == 4


def test_streamed_and_whole_answers_are_the_same_sound(service: LocalService) -> None:
    whole, streamed = speak(service, stream=False), speak(service, stream=True)
    assert streamed.headers["transfer-encoding"] == "chunked"
    assert whole.content[44:] == streamed.content[44:]


@pytest.mark.parametrize("speed", [0.7, 1.6])
def test_speed_changes_the_length(service: LocalService, speed: float) -> None:
    plain, changed = (len(pcm(speak(service, speed=value).content[44:])) for value in (1.0, speed))
    assert changed == pytest.approx(plain / speed, rel=0.02)


def test_a_voice_from_a_prompt(service: LocalService, demo_checkpoint: Path) -> None:
    prompt = demo_checkpoint / "prompts" / "demo_deep.wav"
    with_transcript = {"input": SENTENCE, "prompt_text": prompt.with_suffix(".txt").read_text()}
    without = {"input": SENTENCE, "seed": "3", "response_format": "wav"}
    sounds = []
    for data in (without | with_transcript, without):
        files = {"prompt_audio": (prompt.name, prompt.read_bytes(), "audio/wav")}
        response = httpx.post(f"{service.url}/v1/audio/speech", data=data, files=files, timeout=120)
        assert response.status_code == 200, response.text
        sounds.append(response.content)
        assert len(response.content) > 24000
    assert sounds[0] != sounds[1]


@pytest.mark.parametrize("audio", [b"", b"not audio at all", b"RIFF\x00\x00\x00\x00WAVEfmt "])
def test_unusable_prompt_audio_is_refused_with_what_is_allowed(service: LocalService, audio: bytes) -> None:
    files = {"prompt_audio": ("voice.wav", audio, "audio/wav")}
    response = httpx.post(f"{service.url}/v1/audio/speech", data={"input": SENTENCE}, files=files, timeout=60)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "prompt_audio"


def test_text_without_words_is_refused(service: LocalService) -> None:
    response = speak(service, input="... !!! ???")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "input"


def test_a_client_that_leaves_stops_all_stages_within_a_second(service: LocalService) -> None:
    text = " ".join([LONG] * 20)
    with (
        httpx.Client(timeout=120) as web,
        web.stream(
            "POST", f"{service.url}/v1/audio/speech", json={"input": text, "voice": "demo_male", "realtime": False}
        ) as answer,
    ):
        # Kept in a name: httpx closes the answer when its iterator is collected.
        chunks = answer.iter_raw()
        next(chunks)
        assert running(service)["Vocoder"] >= 1
    assert wait_until(lambda: not any(running(service).values()), 5) < 1.0


def test_leaving_the_client_context_stops_all_stages_within_a_second(
    service: LocalService, client: CosyVoiceClient
) -> None:
    with client.speak(" ".join([LONG] * 20), voice="demo_male", realtime=False) as stream:
        chunks = iter(stream)
        next(chunks)
        assert running(service)["Vocoder"] >= 1
    assert wait_until(lambda: not any(running(service).values()), 5) < 1.0


def test_the_client_raises_what_was_wrong(client: CosyVoiceClient) -> None:
    with pytest.raises(InputError, match="demo_female"), client.speak(SENTENCE, voice="nobody") as stream:
        stream.read()
    assert {voice.name for voice in client.voices()} >= {"demo_male", "demo_female"}


async def test_the_client_streams_inside_an_event_loop(service: LocalService) -> None:
    client = CosyVoiceClient(service.app_name)
    async with client.speak(SENTENCE, voice="demo_bright", seed=1) as stream:
        chunks = [chunk async for chunk in stream]
    assert sum(map(len, chunks)) > 24000


def test_segments_of_a_long_text_follow_without_a_gap(service: LocalService) -> None:
    """A player that starts with the first chunk does not run dry at the seams; the look-ahead keeps few segments.

    Gaps are counted, not added up: without look-ahead each of the 13 seams has the silence of a first audio (0.4 s
    and more), while a machine busy elsewhere makes one or two gaps, of any length.
    """
    text = " ".join([f"This is sentence number {n}, and it says nothing new." for n in range(14)])
    most = 0
    played_until: float | None = None
    gaps = []
    with httpx.stream(
        "POST",
        f"{service.url}/v1/audio/speech",
        json={"input": text, "voice": "demo_male", "response_format": "pcm"},
        timeout=300,
    ) as answer:
        assert answer.status_code == 200
        with ThreadPoolExecutor(1) as pool:
            probe = None
            for data in answer.iter_raw():
                now = time.monotonic()
                if played_until is None:
                    played_until = now
                gaps.append(now - played_until)
                played_until = max(played_until, now) + len(data) / 48000
                if probe is None or probe.done():
                    most = max(most, probe.result()["FlowDecoder"] if probe else 0)
                    probe = pool.submit(running, service)
    assert 1 <= most <= 2
    assert sum(gap > 0.2 for gap in gaps) <= 6


@pytest.mark.parametrize("stage", ["SpeechLM", "FlowDecoder", "Vocoder"])
def test_a_killed_stage_is_replayed_from_the_token_log(
    service: LocalService, client: CosyVoiceClient, stage: str
) -> None:
    """The listener hears the utterance to its end, the same samples as without the kill."""
    with client.speak(LONG, voice="demo_male", seed=11) as stream:
        expected = stream.read()
    with client.speak(LONG, voice="demo_male", seed=11) as stream:
        chunks = iter(stream)
        heard = [next(chunks)]
        os.kill(stage_info(service, stage).process, signal.SIGKILL)
        heard.extend(chunks)
    actual = np.concatenate(heard)
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-3
    wait_until(lambda: serve.status().applications[service.app_name].status == "RUNNING", 60)
