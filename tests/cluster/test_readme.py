"""What README.md shows of the service, run as it stands there, but for the address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import ray

from deployments.client import CosyVoiceClient
from deployments.local import LocalService
from tests.readme import ROOT, counting, shown

SPOKEN_S = 1.0
"""Any of the sentences takes longer."""


def run_in_shell(command: str, service: LocalService, folder: Path) -> None:
    """`command` against `service`; files that it writes go to `folder`."""
    command = command.replace("http://127.0.0.1:8000", service.url)
    command = re.sub(r"-o (\w+\.wav)", lambda found: f"-o {folder / found[1]}", command)
    subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, check=True, timeout=120)


def seconds(path: Path) -> float:
    with wave.open(str(path)) as sound:
        return sound.getnframes() / sound.getframerate()


@pytest.mark.parametrize(("mark", "file"), [("-o hello.wav", "hello.wav"), ("-o tomorrow.wav", "tomorrow.wav")])
def test_curl_writes_a_file(service: LocalService, tmp_path: Path, mark: str, file: str) -> None:
    run_in_shell(shown("sh", mark), service, tmp_path)
    assert seconds(tmp_path / file) > SPOKEN_S


def test_curl_saves_a_voice(service: LocalService, client: CosyVoiceClient, tmp_path: Path) -> None:
    run_in_shell(shown("sh", "-F name=deep"), service, tmp_path)
    assert "zero_shot" in client.voice("deep").info.modes
    client.remove_voice("deep")


def test_curl_feeds_a_player(service: LocalService, tmp_path: Path) -> None:
    """The player is told of 16 bits at 24 kHz, and that is what it gets."""
    command, player = shown("sh", "| ffplay").split("| ffplay")
    assert "-f s16le -ar 24000 -ch_layout mono" in player
    run_in_shell(f"{command.rstrip()} > {tmp_path / 'played.pcm'}".replace("\\ >", ">"), service, tmp_path)
    assert (tmp_path / "played.pcm").stat().st_size > SPOKEN_S * 24000 * 2


@pytest.mark.parametrize("mark", ["client.speak(", "client.speak_stream("])
def test_a_script_of_its_own_joins_the_cluster(service: LocalService, mark: str) -> None:
    program = counting(shown("python", mark))
    if "import" not in program:
        program = "from deployments.client import CosyVoiceClient\nclient = CosyVoiceClient()\n" + program
    program = program.replace("pieces_as_they_come", repr(["Good mor", "ning, how are you", " today."]))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    (samples,) = re.findall(r"samples (\d+)", done.stdout)
    assert int(samples) > SPOKEN_S * 24000
