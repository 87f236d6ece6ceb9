"""The load test's check of itself, in full, and that it would notice."""

from __future__ import annotations

import pytest

from loadtest.__main__ import main
from loadtest.commands.exits import Exit
from loadtest.selfcheck import Check, render


def test_every_figure_of_a_server_of_known_timing_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["selfcheck", "--quiet"])
    shown = capsys.readouterr().out
    assert code == Exit.KEPT, shown
    assert shown.count("ok   ") >= 40
    for part in ("stall, open loop: p90", "stall, closed loop: p90 hides it", "busy client", "streams at once"):
        assert part in shown


@pytest.mark.parametrize(("reported", "passed"), [(1.04, True), (0.96, True), (1.06, False), (float("nan"), False)])
def test_a_figure_beyond_its_tolerance_fails(reported: float, passed: bool) -> None:
    check = Check("a figure", 1.0, reported, 0.05)
    assert check.passed is passed
    assert ("FAIL a figure" in render([check])) is not passed
