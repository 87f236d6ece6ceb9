"""`search`: the highest rate of independent arrivals that keeps the scenario's goodput."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from loadtest import arrivals
from loadtest.commands.exits import Exit
from loadtest.commands.run import show
from loadtest.commands.target import add_target, changed, scenario_of, target_of
from loadtest.machine import Machine
from loadtest.report import Level, Report
from loadtest.scenario import Scenario
from loadtest.search import Found, Trial, highest_rate
from loadtest.session import PlannedLevel, Target, load_test
from loadtest.terminal import progress_bars


def add(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.add_argument("--low", type=float, default=0.25, help="requests per second to begin with")
    parser.add_argument("--high", type=float, default=64.0, help="and to end with")
    parser.add_argument("--json", type=Path, help="write the report of all attempts here")
    parser.add_argument("--html", type=Path, help="write it as a page with plots here")


def main(options: argparse.Namespace) -> Exit:
    """MISSED when even the lowest rate breaks the promise, INVALID when the client was too slow for an attempt."""
    scenario = changed(scenario_of(options), {"load": {"kind": "poisson", "rates": [options.low]}})
    with target_of(options, scenario) as target:
        report, found = asyncio.run(_search(scenario, target, options))
    show(report, options.json, options.html)
    wanted = f"{scenario.slo.goodput:.0%} goodput"
    if found.rate is None:
        print(f"no rate from {options.low:g}/s on keeps {wanted}")
    elif found.broken_at is None:
        print(f"{wanted} is kept at {found.rate:g}/s, the highest that was tried")
    else:
        print(f"highest rate that keeps {wanted}: {found.rate:.3g}/s (broken at {found.broken_at:.3g}/s)")
    if report.bottlenecks:
        return Exit.INVALID
    return Exit.MISSED if found.rate is None else Exit.KEPT


async def _search(scenario: Scenario, target: Target, options: argparse.Namespace) -> tuple[Report, Found]:
    machine, levels = Machine.here(), list[Level]()
    whole_s = scenario.warm_up_s + scenario.duration_s
    bars = progress_bars(whole_s, quiet=options.quiet)
    async with load_test(scenario, target) as test:

        async def attempt(rate: float, number: int) -> Trial:
            offsets = arrivals.poisson(rate, whole_s, scenario.seed + number)
            planned = PlannedLevel(f"{rate:.3g}/s #{number + 1}", "poisson", rate, offsets)
            level = await test.level(planned, number, bars(planned))
            levels.append(level)
            return Trial(rate, level.summary.requests, level.summary.goodput)

        found = await highest_rate(attempt, low=options.low, high=options.high, wanted=scenario.slo.goodput)
        return test.report(tuple(sorted(levels, key=lambda level: level.load)), machine), found
