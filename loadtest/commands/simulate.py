"""`simulate`: a day of traffic on a cluster of any size, scaled by the service's own policy, from recorded costs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from loadtest.commands.exits import Exit
from loadtest.simulation.charts import charts, page, rows, stage_rows
from loadtest.simulation.plan import Plan
from loadtest.simulation.result import Result, simulate
from loadtest.simulation.stage_costs import Costs
from loadtest.simulation.world import Progress
from loadtest.terminal import aligned

_TOLD_EVERY_S = 300


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", default="day", help="YAML file, or the name of a shipped plan (default: day)")
    parser.add_argument(
        "--costs", default="cpu_demo", help="YAML file, or the name of shipped costs (default: cpu_demo)"
    )
    parser.add_argument("--seed", type=int, help="instead of the plan's")
    parser.add_argument("--hours", type=float, help="only so many from midnight on")
    parser.add_argument("--json", type=Path, help="write everything here")
    parser.add_argument("--html", type=Path, help="write it as a page with plots here")
    parser.add_argument("--svg", type=Path, metavar="FOLDER", help="write each plot as a file of its own here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(options: argparse.Namespace) -> Exit:
    """MISSED when the goodput of the plan's SLO was not kept."""
    changes = {} if options.seed is None else {"seed": options.seed}
    if options.hours is not None:
        changes["duration_s"] = round(options.hours * 3600)
    plan, costs = Plan.from_yaml(options.plan, **changes), Costs.from_yaml(options.costs)
    bar: tqdm[Any] = tqdm(total=plan.duration_s, desc=plan.name, unit="s", disable=options.quiet or None)
    with bar:
        result = simulate(plan, costs, _progress(bar))
    print(render(result))
    if options.json is not None:
        result.write(options.json)
    if options.html is not None:
        options.html.write_text(page(result), encoding="utf-8")
    if options.svg is not None:
        options.svg.mkdir(parents=True, exist_ok=True)
        for name, chart in charts(result).items():
            file = options.svg / f"{plan.name}-{name}.svg"
            file.write_text(chart.render(standalone=True) + "\n", encoding="utf-8")
    return Exit.KEPT if result.kept else Exit.MISSED


def render(result: Result) -> str:
    """Everything a terminal shows after a run."""
    plan, costs = result.plan, result.costs
    cluster = plan.cluster
    width = max(len(name) for name, _ in rows(result))
    return "\n".join(
        [
            f"{plan.name}: {plan.description}".rstrip(": "),
            f"simulated, not measured: {plan.duration_s / 3600:g} h on {cluster.nodes} nodes of "
            f"{cluster.devices_per_node} devices ({costs.device}), seed {plan.seed}, costs: {costs.name}",
            "",
            *(f"{name:<{width}}  {value}" for name, value in rows(result)),
            "",
            aligned(stage_rows(result)),
        ]
    )


def _progress(bar: tqdm[Any]) -> Progress:
    def tell(now: int) -> None:
        if now >= 0 and (now + 1) % _TOLD_EVERY_S == 0:
            bar.update(now + 1 - bar.n)

    return tell
