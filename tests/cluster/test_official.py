"""CosyVoice's own routes through the five deployments, called as its own client does: form fields in a GET."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np

from deployments.local import LocalService

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
