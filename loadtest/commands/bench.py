"""`bench`: starts the service on a free port, measures it with a short sweep, ends it, and refreshes the pages."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from loadtest.commands.exits import Exit
from loadtest.commands.run import measure, show
from loadtest.commands.target import add_target, scenario_of, target_of, with_levels
from loadtest.own_service import ROOT, own_service
from loadtest.page_table import refresh


def add(parser: argparse.ArgumentParser) -> None:
    add_target(parser)
    parser.set_defaults(config=ROOT / "serve_config.yaml")
    parser.add_argument("--levels", type=float, nargs="+", help="sizes of load instead of the scenario's")
    parser.add_argument("--json", type=Path, help="write the report here")
    parser.add_argument("--html", type=Path, help="write it as a page with plots here")
    parser.add_argument("--page", type=Path, help="Markdown page whose table is to be refreshed")


def main(options: argparse.Namespace) -> Exit:
    """A missed SLO is a finding here and no failure; a client that was too slow is one."""
    scenario = with_levels(scenario_of(options), options.levels)
    print(f"starting the service by {options.config.name} ...", flush=True)
    with own_service(options.config) as options.url, target_of(options, scenario) as target:
        report = asyncio.run(measure(scenario, target, quiet=options.quiet))
    show(report, options.json, options.html)
    if options.page is not None:
        refresh(options.page, report)
        print(f"table in {options.page} refreshed")
    return Exit.INVALID if report.bottlenecks else Exit.KEPT
