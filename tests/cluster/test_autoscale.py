"""The short form of `python -m tests.autoscale`: one stage is too small, grows alone, and shrinks without cutting a
stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_load_step_grows_the_bottleneck_alone_and_nothing_is_cut(tmp_path: Path) -> None:
    """In a process of its own, as this one has a Ray already."""
    file = tmp_path / "autoscale.json"
    command = [sys.executable, "-m", "tests.autoscale", "--load-s", "45", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540, check=False)
    assert file.is_file(), done.stdout[-2000:] + done.stderr[-4000:]
    record = json.loads(file.read_text())
    assert record["grew"] == ["FlowDecoder"], record["looks"]
    assert record["at_end"] == record["looks"][0]["running"] == dict.fromkeys(record["most"], 1)
    assert record["streams"] > 5
    assert record["cut"] == 0, done.stderr[-4000:]
