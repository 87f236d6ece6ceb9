"""`run`: one scenario against a running service."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from loadtest.commands.exits import Exit, exit_of
from loadtest.commands.target import add_target, scenario_of, target_of, with_levels
from loadtest.html import page
from loadtest.report import Report
from loadtest.scenario import Scenario
from loadtest.session import Target, load_test
from loadtest.terminal import progress_bars, render


def add(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument(
        "--levels", type=float, nargs="+", help="sizes of load instead of the scenario's: rates, users, or speeds"
    )
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--html", type=Path, help="write it as a page with plots here")


def main(options: argparse.Namespace) -> Exit:
    scenario = with_levels(scenario_of(options), options.levels)
    with target_of(options, scenario) as target:
        report = asyncio.run(measure(scenario, target, quiet=options.quiet))
    show(report, options.json, options.html)
    return exit_of(report)


async def measure(scenario: Scenario, target: Target, *, quiet: bool) -> Report:
    """Run all levels with progress bars."""
    bars = progress_bars(scenario.warm_up_s + scenario.duration_s, quiet=quiet)
    async with load_test(scenario, target) as test:
        return await test.run(bars)


def show(report: Report, json: Path | None, html: Path | None) -> None:
    """On the terminal, and to the files that are wanted."""
    print(render(report))
    if json is not None:
        report.write(json)
    if html is not None:
        html.write_text(page(report), encoding="utf-8")
