"""Two reports: a real change is seen, chance is not taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.__main__ import main
from loadtest.commands.exits import Exit
from loadtest.compare import Change, compare, differences_of_setting
from loadtest.machine import Machine
from loadtest.report import Level, Report
from tests.loadtest.made import level, record, report


def measured(seed: int, scale: float = 1.0, silence_s: float = 0.0) -> Level:
    chance = np.random.default_rng(seed)
    firsts = chance.lognormal(-1.0, 0.3, 150) * scale
    pauses = (0.1 + silence_s,)
    return level(
        "1/s", [record(float(first), intended_s=5 + n / 10, pauses_s=pauses) for n, first in enumerate(firsts)]
    )


def changes(before: Report, after: Report) -> dict[str, Change]:
    return {one.figure: one.change for one in compare(before, after)}


def test_the_same_service_twice_shows_no_difference() -> None:
    assert set(changes(report(measured(1)), report(measured(2))).values()) == {Change.UNCLEAR}


def test_a_slower_first_audio_is_worse_and_back_again_better() -> None:
    before, after = report(measured(1)), report(measured(2, scale=1.5))
    assert changes(before, after)["first audio p50 (s)"] is Change.WORSE
    assert changes(after, before)["first audio p50 (s)"] is Change.BETTER


def test_more_silence_is_worse_and_lowers_the_shares() -> None:
    found = changes(report(measured(1)), report(measured(1, silence_s=0.7)))
    assert found["silence p95 (s)"] is Change.WORSE
    assert found["goodput"] is Change.WORSE
    assert found["gap-free"] is Change.WORSE
    assert found["first audio p50 (s)"] is Change.UNCLEAR


def test_figures_are_those_of_the_two_reports() -> None:
    before, after = report(measured(1)), report(measured(2, scale=1.5))
    (median,) = [one for one in compare(before, after) if one.figure == "first audio p50 (s)"]
    first, second = (one.levels[0].summary.first_audio for one in (before, after))
    assert first and second
    assert (median.before, median.after) == pytest.approx((first.p50.value, second.p50.value))
    assert median.difference.low < second.p50.value - first.p50.value < median.difference.high


def test_what_else_differs_is_said() -> None:
    before = report(measured(1))
    busier = Machine("another processor", 4, 8.0, "Linux 6", (), None, 7.5)
    after = replace(before, machine=busier, software=replace(before.software, commit="def"))
    told = " ".join(differences_of_setting(before, after))
    assert "another processor" in told
    assert "abc and def" in told
    assert "0.5 and 7.5" in told
    assert differences_of_setting(before, before) == []


def test_exit_codes_of_the_command(tmp_path: Path) -> None:
    files = {}
    for name, made in {"fast": measured(1), "again": measured(2), "slow": measured(3, scale=2)}.items():
        files[name] = str(tmp_path / f"{name}.json")
        report(made).write(Path(files[name]))
    other = str(tmp_path / "other.json")
    report(replace(measured(1), label="8/s")).write(Path(other))
    assert main(["compare", files["fast"], files["again"]]) == Exit.KEPT
    assert main(["compare", files["fast"], files["slow"]]) == Exit.MISSED
    assert main(["compare", files["slow"], files["fast"]]) == Exit.KEPT
    assert main(["compare", files["fast"], other]) == Exit.WRONG
