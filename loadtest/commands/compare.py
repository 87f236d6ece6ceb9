"""`compare`: two reports, with confidence intervals of every difference."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.commands.exits import Exit
from loadtest.compare import Change, compare, differences_of_setting, render
from loadtest.errors import ScenarioError
from loadtest.report import Report


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", type=Path, metavar="A", help="JSON report")
    parser.add_argument("after", type=Path, metavar="B", help="JSON report")


def main(options: argparse.Namespace) -> Exit:
    """MISSED when B is worse than A in any figure, by more than chance explains."""
    before, after = Report.read(options.before), Report.read(options.after)
    comparisons = compare(before, after)
    if not comparisons:
        raise ScenarioError("the two reports have no level in common")
    for line in differences_of_setting(before, after):
        print(f"note: {line}")
    print(render(comparisons))
    worse = any(one.change is Change.WORSE for one in comparisons)
    return Exit.MISSED if worse else Exit.KEPT
