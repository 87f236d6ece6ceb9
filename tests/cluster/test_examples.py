"""Each example run against the service, as its docstring says but for the address."""

from __future__ import annotations

import os
import subprocess
import sys
import wave
from pathlib import Path

import httpx
import pytest
import ray
from ray import serve

from deployments.local import LocalService
from examples import audiobook, customer_service, translator
from tests.readme import ROOT


def samples(path: Path) -> int:
    with wave.open(str(path)) as sound:
        assert sound.getframerate() == 24000
        return sound.getnframes()


def test_the_translator_speaks_english_while_german_comes(service: LocalService, tmp_path: Path) -> None:
    """As a program of its own, whose classes travel to the replica by value."""
    out = tmp_path / "translated.wav"
    url = f"ws://{service.host}:{service.port}{translator.ROUTE}/"
    done = subprocess.run(
        [sys.executable, "-m", "examples.translator", "--url", url, "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # Seeds are drawn, so how long it is differs; two sentences take longer than this.
    assert samples(out) > 24000
    assert translator.APP not in serve.status().applications


def test_customer_service_speaks_each_level(service: LocalService, tmp_path: Path) -> None:
    out = tmp_path / "call.wav"
    asked = ["I am sorry to hear that.", "--emotion", "apologetic", "--level", "3"]
    customer_service.main([*asked, "--url", service.url, "--out", str(out)])
    assert samples(out) > 12000


def test_customer_service_says_what_is_wrong(service: LocalService, tmp_path: Path) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        customer_service.main(
            ["Hello.", "--voice", "nobody", "--url", service.url, "--out", str(tmp_path / "call.wav")]
        )


def test_an_audiobook_is_read_in_order(service: LocalService, tmp_path: Path) -> None:
    out = tmp_path / "book.wav"
    audiobook.main(["--url", service.url, "--out", str(out)])
    assert out.stat().st_size > 5 * 12000 * 2


def test_the_bot_answers(service: LocalService, tmp_path: Path) -> None:
    client_env = pytest.importorskip("tools.client_env", reason="pipecat has an environment of its own")
    if not client_env.is_built(Path(sys.prefix)):
        pytest.skip("pipecat has an environment of its own: python -m tools.client_env")
    out = tmp_path / "bot.wav"
    python = client_env.client_python(Path(sys.prefix))
    command = [str(python), "examples/voice_bot.py", "When do you open?", "--url", service.url, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert samples(out) > 24000
