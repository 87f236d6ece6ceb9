"""pipecat's OpenAI TTS service in a pipeline of its own, which speaks through the service."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.local import LocalService
from tests.cluster.heard import Sound, assert_same_sound, pcm, wav_of
from tools import client_env
from tools.setup_choices import SetupError

pytestmark = pytest.mark.clients

LISTENER = Path(__file__).parents[1] / "clients" / "pipecat_listener.py"
TEXT = "Good morning, how are you today."
SECOND = "The train leaves at nine in the morning."

Listen = Callable[..., tuple[Sound, dict[str, Any]]]


@pytest.fixture(scope="module")
def python() -> Path:
    """Made by set-up; else here."""
    try:
        return client_env.build(Path(sys.prefix))
    except SetupError as error:
        pytest.skip(f"pipecat-ai cannot be installed here: {error}")


@pytest.fixture
def listen(service: LocalService, python: Path, tmp_path: Path) -> Listen:
    def run(voice: str, *texts: str) -> tuple[Sound, dict[str, Any]]:
        command = [str(python), str(LISTENER), f"{service.url}/v1", voice, str(tmp_path), *texts]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        report = json.loads((tmp_path / "report.json").read_text())
        return pcm((tmp_path / "heard.pcm").read_bytes()), report

    return run


def test_texts_are_played_to_their_end(service: LocalService, listen: Listen) -> None:
    """The voice is one of OpenAI's, as pipecat knows no others; the config says which of ours it is."""
    heard, report = listen("alloy", TEXT, SECOND)
    assert report["errors"] == []
    assert report["rates"] == [24000]
    assert report["frames"] > 2
    assert report["started"] == report["stopped"] > 0
    texts = zip((TEXT, SECOND), report["seeds"], strict=True)
    expected = np.concatenate([wav_of(service.url, text, "demo_female", seed) for text, seed in texts])
    assert_same_sound(heard, expected)


def test_an_error_is_a_frame_of_its_own(listen: Listen) -> None:
    heard, report = listen("verse", TEXT)
    assert len(heard) == 0
    assert "demo_female" in report["errors"][0]
