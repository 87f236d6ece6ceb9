"""CosyVoice's own routes through the five deployments, called as its own client does: form fields in a GET."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
import requests

from deployments.local import LocalService
from tests.cluster.heard import assert_same_sound, pcm, wav_of

pytestmark = pytest.mark.clients

TEXT = "The train leaves at nine in the morning."


def test_a_saved_voice_and_a_prompt_are_heard_while_they_are_made(service: LocalService, demo_checkpoint: Path) -> None:
    prompt = demo_checkpoint / "prompts" / "demo_deep.wav"
    file = {"prompt_wav": ("prompt_wav", prompt.read_bytes(), "application/octet-stream")}
    transcript = prompt.with_suffix(".txt").read_text()
    calls = (
        ("inference_sft", {"spk_id": "demo_male"}, None),
        ("inference_zero_shot", {"prompt_text": transcript}, file),
    )
    for route, fields, files in calls:
        with httpx.stream(
            "GET", f"{service.url}/{route}", data={"tts_text": TEXT, **fields}, files=files, timeout=120
        ) as answer:
            assert answer.status_code == 200
            assert answer.headers["transfer-encoding"] == "chunked"
            data = b"".join(answer.iter_raw())
        samples = np.frombuffer(data, "<i2").astype(np.float32) / 32768
        assert len(samples) > 24000
        assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.5


def test_all_modes_by_the_official_clients_library(service: LocalService, demo_checkpoint: Path) -> None:
    """It is `requests`: a GET with a body, read in pieces of 16,000 bytes."""
    prompt = demo_checkpoint / "prompts" / "demo_deep.wav"
    transcript = prompt.with_suffix(".txt").read_text()
    ours = {"prompt_audio": (prompt.name, prompt.read_bytes(), "audio/wav")}
    saved, instruction = {"spk_id": "demo_male"}, {"instruct_text": "Speak slowly."}
    calls: tuple[tuple[str, dict[str, str], bool, dict[str, str]], ...] = (
        ("inference_sft", saved, False, {"voice": "demo_male", "mode": "sft"}),
        ("inference_zero_shot", {"prompt_text": transcript}, True, {"prompt_text": transcript, "mode": "zero_shot"}),
        ("inference_cross_lingual", {}, True, {"mode": "cross_lingual"}),
        (
            "inference_instruct",
            saved | instruction,
            False,
            {"voice": "demo_male", "mode": "instruct2", "instructions": "Speak slowly."},
        ),
        ("inference_instruct2", instruction, True, {"mode": "instruct2", "instructions": "Speak slowly."}),
    )
    for route, fields, prompted, body in calls:
        with prompt.open("rb") as wav:
            files = [("prompt_wav", ("prompt_wav", wav, "application/octet-stream"))] if prompted else None
            answer = requests.request(
                "GET",
                f"{service.url}/{route}",
                data={"tts_text": TEXT, **fields},
                files=files,
                stream=True,
                timeout=120,
            )
            heard = b"".join(answer.iter_content(chunk_size=16000))
        assert answer.status_code == 200, heard
        seed = answer.headers["x-seed"]
        if prompted:
            data = {"input": TEXT, "seed": seed, "response_format": "pcm", **body}
            same = httpx.post(f"{service.url}/v1/audio/speech", data=data, files=ours, timeout=120)
            assert same.status_code == 200, same.text
            assert_same_sound(pcm(heard), pcm(same.content))
        else:
            assert_same_sound(pcm(heard), wav_of(service.url, TEXT, **{**body, "seed": int(seed)}))
