"""The benches measure what they say they do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.bench.__main__ import main
from deployments.bench.memory import MemoryReport, Reading, resident_mb


def test_figures_of_the_torch_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lm.json"
    command = [
        "lm",
        "--engines",
        "torch",
        "--concurrent",
        "1",
        "3",
        "--tokens",
        "20",
        "--device",
        "cpu",
        "--rounds",
        "2",
    ]
    assert main([*command, "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert [(one["engine"], one["concurrent"]) for one in record["figures"]] == [("torch", 1), ("torch", 3)]
    for one in record["figures"]:
        assert len(one["rounds"]) == 2
        for part in one["rounds"]:
            seconds = one["concurrent"] * 20 / part["tokens_per_s"]
            assert 0 < part["first_token_median_s"] <= part["first_token_worst_s"] < seconds
        assert one["tokens_per_s"] == sum(part["tokens_per_s"] for part in one["rounds"]) / 2
    assert record["load"]["tokens"] == 20
    assert {"machine", "versions", "date", "command", "start_s"} <= record.keys()
    shown = capsys.readouterr().out
    assert "torch tok/s" in shown
    assert "vllm" not in shown


def test_figures_of_the_flow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flow.json"
    command = ["flow", "--concurrent", "1", "3", "--tokens", "50", "--device", "cpu", "--repeats", "2"]
    assert main([*command, "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert [(one["concurrent"], one["audio_s"]) for one in record["figures"]] == [(1, 2.0), (3, 6.0)]
    for one in record["figures"]:
        assert len(one["seconds"]) == 2
        assert all(0 < first < whole for first, whole in zip(one["first_s"], one["seconds"], strict=True))
        assert one["audio_s_per_s"] == pytest.approx(2 * one["audio_s"] / sum(one["seconds"]))
    assert record["counted"] == "processor time"
    assert "audio s/s" in capsys.readouterr().out


def test_memory_is_read_of_all_processes_below_this_one() -> None:
    hold = "import sys; block = bytearray(b'x') * 200_000_000; print(len(block), flush=True); sys.stdin.read()"
    # A stage that no service has: one may be running below this process for other tests.
    title = "ray::ServeReplica:cosyvoice:Whistler.whistle"
    with subprocess.Popen(
        [sys.executable, "-c", hold, title], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        sizes = resident_mb()
        child.communicate("")
    assert 190 < sizes["Whistler"] < 400
    assert "Whistler" not in resident_mb()


def test_growth_of_memory_is_told_per_process() -> None:
    report = MemoryReport([Reading(20.0 * n, 9.0 * n, {"Vocoder": 400.0 + n, "Ingress": 300.0}) for n in range(51)])
    lines = report.render(spans=3).splitlines()
    assert "0..320 s | 340..660 s | 680..1000 s" in lines[0]
    assert lines[2:4] == [
        "| Ingress | 300, 300 | 300, 300 | 300, 300 | 0.0 |",
        "| Vocoder | 408, 416 | 425, 433 | 442, 450 | 50.0 |",
    ]
    assert lines[-1] == "1000 s of audio in 450 s"


def test_figures_of_the_vocoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "vocoder.json"
    command = ["vocoder", "--model", "checkpoints/demo", "--concurrent", "1", "3", "--frames", "70", "--repeats", "1"]
    assert main([*command, "--device", "cpu", "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert [one["concurrent"] for one in record["figures"]] == [1, 3]
    # Two sizes, at the beginning and later, in batches of 1, and of 1, 2 and 3.
    assert [one["shapes"] for one in record["figures"]] == [4, 12]
    for one in record["figures"]:
        assert one["audio_s"] == pytest.approx(one["concurrent"] * 1.4)
        assert one["together_s"] > 0
        assert one["in_turn_s"] > 0
    assert record["counted"] == "processor time"
    assert {"machine", "date", "command", "load"} <= record.keys()
    assert "together" in capsys.readouterr().out
