"""The bench of the language model measures what it says it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.bench.__main__ import main


def test_figures_of_the_torch_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lm.json"
    command = ["lm", "--engines", "torch", "--concurrent", "1", "3", "--tokens", "20", "--device", "cpu"]
    assert main([*command, "--json", str(file)]) == 0
    record = json.loads(file.read_text())
    assert [(one["engine"], one["concurrent"]) for one in record["figures"]] == [("torch", 1), ("torch", 3)]
    for one in record["figures"]:
        seconds = one["concurrent"] * 20 / one["tokens_per_s"]
        assert 0 < one["first_token_median_s"] <= one["first_token_worst_s"] < seconds
    assert record["load"]["tokens"] == 20
    assert {"machine", "versions", "date", "command", "start_s"} <= record.keys()
    shown = capsys.readouterr().out
    assert "torch tok/s" in shown
    assert "vllm" not in shown
