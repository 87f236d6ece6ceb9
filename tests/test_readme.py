"""What README.md shows of the core alone, run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
import wave
from pathlib import Path

from tests.readme import ROOT, counting, shown


def run(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout


def test_the_core_in_python() -> None:
    (samples,) = re.findall(r"samples (\d+)", run(sys.executable, "-c", counting(shown("python", "Synthesizer"))))
    assert int(samples) > 24000


def test_speak(tmp_path: Path) -> None:
    command = shown("sh", "cosyvoice_core speak")
    words = re.fullmatch(
        r"\.venv/bin/python (-m cosyvoice_core speak) \"(.+?)\" (.+) --out hello\.wav --stream\n", command
    )
    assert words is not None, command
    out = tmp_path / "hello.wav"
    run(sys.executable, *words[1].split(), words[2], *words[3].split(), "--out", str(out), "--stream")
    with wave.open(str(out)) as sound:
        assert sound.getnframes() > sound.getframerate()


def test_inspect() -> None:
    assert ".venv/bin/python -m cosyvoice_core inspect /path/to/CosyVoice2-0.5B" in shown("sh", "inspect")
    assert "sound" in run(sys.executable, "-m", "cosyvoice_core", "inspect", "checkpoints/demo")
