"""Broken and oversized prompt audio against the running service: refused, in little memory, and it serves on."""

from __future__ import annotations

import httpx
import psutil
from ray import serve

from deployments.local import LocalService
from tests.audio.broken import bombs, broken_files
from tests.cluster.heard import wav_of


def test_it_is_refused_and_the_service_serves_on(service: LocalService) -> None:
    before = wav_of(service.url, "Good morning.", "demo_male", 3)
    ids = [
        serve.get_deployment_handle(name, service.app_name).info.remote().result(timeout_s=30).process
        for name in ("Ingress", "VoiceEncoder")
    ]
    with httpx.Client(base_url=service.url, timeout=120) as web:

        def refused(name: str, content: bytes) -> None:
            files = {"prompt_audio": ("../../voice.wav", content, "audio/wav")}
            answer = web.post("/v1/audio/speech", data={"input": "Good morning."}, files=files)
            assert answer.status_code == 400, (name, answer.text)
            error = answer.json()["error"]
            assert error["param"] == "prompt_audio", name
            assert "allowed" in error["message"], name

        for name, content in broken_files():
            refused(name, content)
        sizes = [psutil.Process(process).memory_info().rss for process in ids]
        for name, content in bombs():
            refused(name, content)
        for process, size in zip(ids, sizes, strict=True):
            # Unpacked they are 80 to 690 MB.
            assert psutil.Process(process).memory_info().rss - size < 96 << 20
    assert (wav_of(service.url, "Good morning.", "demo_male", 3) == before).all()
