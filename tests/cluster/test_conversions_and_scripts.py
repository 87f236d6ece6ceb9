"""Conversions and scripts through the five deployments, against the model in one process and against single calls."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ray import serve

from cosyvoice_core.audio.decode import decode_audio
from cosyvoice_core.audio.encode import write_wav
from cosyvoice_core.synthesis import Synthesizer
from deployments.args import AppArgs
from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from deployments.messages import SpeakCall
from tests.cluster.test_service import pcm, running, stage_info, wait_until

RATE = 24000


@pytest.fixture(scope="module")
def synthesizer(service: LocalService, deployed_config: dict[str, Any]) -> Synthesizer:
    """The model in one process, planning as the service is configured to."""
    arguments = AppArgs.model_validate(deployed_config["applications"][0]["args"])
    return Synthesizer.from_pretrained(arguments.model_source(), hops=arguments.hops.plan())


@pytest.fixture(scope="module")
def source(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 s of speech: more than the tokenizer takes at once."""
    sound = decode_audio(demo_checkpoint / "prompts" / "demo_male.wav")
    samples = np.resize(sound.samples, 32 * sound.rate)
    path = tmp_path_factory.mktemp("source") / "source.wav"
    write_wav(path, [samples], sound.rate)
    return path


def test_a_recording_is_spoken_as_by_the_model_in_one_process(
    client: CosyVoiceClient, synthesizer: Synthesizer, demo_checkpoint: Path
) -> None:
    path = demo_checkpoint / "prompts" / "demo_male.wav"
    voice = synthesizer.voice("demo_female")
    expected = np.concatenate(list(synthesizer.stream_conversion(path, voice, seed=3, speed=1.2)))
    with client.convert(path.read_bytes(), voice="demo_female", seed=3, speed=1.2) as stream:
        actual = stream.read()
    assert actual.shape == expected.shape
    # Rounding moves the pitch, and adds up in the phase.
    assert np.abs(actual - expected).max() < 1e-3


def test_a_long_recording_is_spoken_to_its_end_when_a_stage_is_lost(
    service: LocalService, synthesizer: Synthesizer, source: Path
) -> None:
    expected = np.concatenate(list(synthesizer.stream_conversion(source, synthesizer.voice("demo_female"), seed=3)))
    assert len(expected) / RATE == pytest.approx(32, abs=0.1)
    with httpx.stream(
        "POST",
        f"{service.url}/v1/audio/conversions",
        data={"voice": "demo_female", "seed": "3", "response_format": "pcm", "realtime": "false"},
        files={"source_audio": ("source.wav", source.read_bytes(), "audio/wav")},
        timeout=300,
    ) as answer:
        assert answer.status_code == 200
        parts = answer.iter_raw()
        heard = [next(parts)]
        os.kill(stage_info(service, "FlowDecoder").process, signal.SIGKILL)
        heard.extend(parts)
    actual = pcm(b"".join(heard))
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() < 1e-3
    wait_until(lambda: serve.status().applications[service.app_name].status == "RUNNING", 60)


def test_a_source_that_cannot_be_used_is_refused(service: LocalService) -> None:
    files = {"source_audio": ("source.wav", b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav")}
    answer = httpx.post(f"{service.url}/v1/audio/conversions", data={"voice": "demo_male"}, files=files, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "source_audio"


def test_a_script_is_its_lines_in_order_with_their_pauses(
    service: LocalService, client: CosyVoiceClient, demo_checkpoint: Path
) -> None:
    prompt = demo_checkpoint / "prompts" / "demo_deep.wav"
    lines = [
        {"voice": "demo_female", "text": "Good morning, how are you today.", "pause_s": 0.5},
        {"voice": "guest", "text": "It is cold today.", "seed": 8},
        {"voice": "demo_male", "text": "The train leaves at nine in the morning.", "speed": 1.2, "seed": 9},
    ]
    body = {
        "lines": [{**lines[0], "seed": 7}, *lines[1:]],
        "voices": {"guest": {"prompt_audio": base64.b64encode(prompt.read_bytes()).decode()}},
        "pause_s": 0.25,
        "response_format": "pcm",
        "stream_format": "sse",
        "timestamps": "segment",
    }
    answer = httpx.post(f"{service.url}/v1/audio/scripts", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    events = [json.loads(block.split("data: ")[1]) for block in answer.text.split("\n\n") if block]
    sound = pcm(b"".join(base64.b64decode(e["audio"]) for e in events if e["type"] == "speech.audio.delta"))

    alone = [
        client.speak("Good morning, how are you today.", voice="demo_female", seed=7).read(),
        client.speak("It is cold today.", prompt_audio=prompt.read_bytes(), seed=8).read(),
        client.speak("The train leaves at nine in the morning.", voice="demo_male", speed=1.2, seed=9).read(),
    ]
    silence = [np.zeros(round(seconds * RATE), np.float32) for seconds in (0.5, 0.25)]
    expected = np.concatenate([alone[0], silence[0], alone[1], silence[1], alone[2]])
    assert sound.shape == expected.shape
    assert np.abs(sound - expected).max() < 1e-3

    begins = [0, len(alone[0]) + len(silence[0]), len(alone[0]) + len(silence[0]) + len(alone[1]) + len(silence[1])]
    started = [e for e in events if e["type"] == "script.line.started"]
    assert [e["line"] for e in started] == [0, 1, 2]
    assert [e["start"] for e in started] == pytest.approx([sample / RATE for sample in begins], abs=1e-3)
    done = [e for e in events if e["type"] == "speech.segment.done"]
    assert [e["end"] - e["start"] for e in done] == pytest.approx([len(sound) / RATE for sound in alone], abs=1e-3)
    assert events[-1]["type"] == "speech.audio.done"


def test_few_lines_of_a_long_script_are_under_way_at_once(service: LocalService, client: CosyVoiceClient) -> None:
    lines = [SpeakCall(f"This is line number {n}, and it says nothing new.", voice="demo_male") for n in range(40)]
    most = heard = 0
    with client.read(lines, seed=1) as stream:
        for chunk in stream:
            heard += len(chunk)
            most = max(most, running(service)["FlowDecoder"])
            if heard > 15 * RATE:
                break
    assert 2 <= most <= 1 + AppArgs().playback.script_look_ahead
    wait_until(lambda: not any(running(service).values()), 30)
