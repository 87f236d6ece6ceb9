"""The command from plan to files, on a small day."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loadtest.__main__ import main
from loadtest.commands.exits import Exit

DAY = """
description: Six minutes <after> midnight.
duration_s: 720
warm_up_s: 120
traffic: {peak_per_s: 6, bursts: [{at_h: 0.1, lasts_s: 60, factor: 3}]}
cluster: {nodes: 6, devices_per_node: 8, losses: [{at_h: 0.15, nodes: 2}]}
rules: {shrink_after_s: 60}
"""


@pytest.fixture
def day(tmp_path: Path) -> Path:
    file = tmp_path / "mini.yaml"
    file.write_text(DAY)
    return file


def test_a_small_day_on_the_shipped_costs(day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "day.json"), "--html", str(tmp_path / "day.html"), "--svg", str(tmp_path / "svg")]
    code = main(["simulate", "--plan", str(day), "--quiet", *files])
    found = json.loads((tmp_path / "day.json").read_text())
    summary = found["summary"]
    assert code == (Exit.KEPT if summary["goodput"] >= 0.99 else Exit.MISSED)
    assert summary["asked"] > 6 * 720 * 0.9
    assert summary["asked"] >= summary["finished"] + summary["rejected"] - summary["peak_open"]
    assert summary["gpu_hours"] <= 48 * 720 / 3600
    assert summary["first_audio"]["p50"] <= summary["first_audio"]["p95"] <= summary["first_audio"]["p99"]
    assert len(found["asked_per_s"]) == len(found["stages"]["Vocoder"]["running"]) == 12
    assert [loss["nodes"] for loss in found["losses"]] == [2]
    assert found["plan"]["name"] == "mini"
    assert found["costs"]["measured"]
    shown = capsys.readouterr().out
    assert "simulated, not measured" in shown
    assert "FlowDecoder" in shown
    page = (tmp_path / "day.html").read_text()
    assert "&lt;after&gt;" in page
    assert page.count("<svg") == 3
    for name in ("traffic", "replicas", "first-audio"):
        root = ElementTree.fromstring((tmp_path / "svg" / f"mini-{name}.svg").read_text())
        assert "2 nodes lost" in "".join(root.itertext())


def test_seed_and_hours_can_be_given(day: Path, tmp_path: Path) -> None:
    def run(*options: str) -> dict[str, object]:
        file = tmp_path / "out.json"
        main(["simulate", "--plan", str(day), "--quiet", "--json", str(file), *options])
        found: dict[str, object] = json.loads(file.read_text())
        return {name: found[name] for name in ("summary", "stages", "first_audio", "losses")}

    short = ["--hours", "0.05"]
    assert run(*short) == run(*short)
    assert run(*short) != run(*short, "--seed", "2")


def test_a_broken_goal_and_a_broken_file_have_exit_codes(
    day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(DAY + "slo: {first_audio_s: 0.01}\n")
    assert main(["simulate", "--plan", str(strict), "--quiet", "--hours", "0.02"]) == Exit.MISSED
    assert main(["simulate", "--plan", str(day), "--costs", "nowhere", "--quiet"]) == Exit.WRONG
    assert "cpu_demo" in capsys.readouterr().err
    assert main(["simulate", "--plan", str(day), "--hours", "0.001", "--quiet"]) == Exit.WRONG
    assert "duration_s" in capsys.readouterr().err
