"""`show`: a saved report again, on the terminal, as a page, or as single plots for documents."""

from __future__ import annotations

import argparse
from pathlib import Path

from loadtest.charts import charts
from loadtest.commands.exits import Exit, exit_of
from loadtest.commands.run import show
from loadtest.report import Report


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", type=Path, help="JSON report")
    parser.add_argument("--html", type=Path, help="write it as a page with plots here")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="write each plot as a file of its own here")


def main(options: argparse.Namespace) -> Exit:
    report = Report.read(options.report)
    show(report, None, options.html)
    if options.svg is not None:
        options.svg.mkdir(parents=True, exist_ok=True)
        for number, chart in enumerate(charts(report), start=1):
            file = options.svg / f"{report.scenario.name}-{number}.svg"
            file.write_text(chart.render(standalone=True) + "\n", encoding="utf-8")
    return exit_of(report)
