"""The short forms of `python -m tests.chaos` and `python -m tests.soak`.

Each runs in a process of its own, as this one has a Ray already.

Kills of the three stages that speak, and of vLLM's engine, are in test_service.py and test_engine_death.py; here are
those that need several nodes, or were not met there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def report(file: Path, module: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", module, *arguments, "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert file.is_file(), done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(file.read_text())
    found["told"] = done.stdout[-2000:] + done.stderr[-4000:]
    return found


@pytest.mark.slow
def test_listeners_hear_everything_whatever_is_killed(tmp_path: Path) -> None:
    kinds = ("VoiceEncoder", "FlowDecoder", "raylet")
    options = ("--kinds", *kinds, "--kills", str(len(kinds)), "--streams", "8", "--pause-s", "1")
    record = report(tmp_path / "chaos.json", "tests.chaos", *options)
    assert record["kills_by_kind"] == dict.fromkeys(kinds, 1), record["told"]
    assert record["streams"] >= 8
    assert record["hit"] > 0
    assert (record["broken_streams"], record["orphans"], record["leaks"]) == (0, 0, 0), record["told"]


@pytest.mark.slow
def test_rude_callers_leave_nothing_behind(tmp_path: Path) -> None:
    """Memory is not judged here: half a minute is all warming up."""
    options = ("--minutes", "0.5", "--engine", "torch", "--growth-percent", "100")
    record = report(tmp_path / "soak.json", "tests.soak", *options)
    assert sum(record["calls"].values()) > 10
    assert record["failures"] == []
    assert (record["orphans"], record["leaks"], record["replaced"]) == ({}, {}, 0)
    assert len(record["rss_mb"]) == 5
