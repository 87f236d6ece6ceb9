"""A report as one HTML page that needs nothing else: figures, plots, and what they were measured on."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import yaml

from loadtest.charts import charts
from loadtest.report import Report
from loadtest.terminal import HEAD, level_row, stage_rows

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #8886; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 1rem; }
svg { width: 100%; height: auto; }
pre { overflow-x: auto; padding: .8rem; border: 1px solid #8886; }
.bad { color: #d33; font-weight: 600; } .good { color: #0a7d55; font-weight: 600; }
"""


def page(report: Report) -> str:
    """The whole page."""
    slo = report.scenario.slo
    title = escape(f"Load test: {report.scenario.name}")
    parts = [
        f"<h1>{title}</h1><p>{escape(report.scenario.description)}</p>",
        f"<p>Good is: first audio within {slo.first_audio_s:g} s of the intended start, and gap-free for a listener "
        f"with {slo.gap_tolerance_s * 1000:g} ms of patience. The first {report.scenario.warm_up_s:g} s of each level "
        "are excluded. Times in seconds by the client's clock; brackets are 95 % intervals within this run; ~ marks "
        "percentiles with fewer than five requests beyond.</p>",
        _verdict(report),
        table([HEAD, *(level_row(level) for level in report.levels)]),
    ]
    rows = stage_rows(report)
    if rows:
        parts += ["<h2>Where the first audio's time goes</h2><p>Mean / mean of the slowest tenth.</p>", table(rows)]
    parts += [
        "<h2>Plots</h2><div class=plots>",
        *(f"<div>{chart.render()}</div>" for chart in charts(report)),
        "</div>",
    ]
    parts += ["<h2>What was measured, and on what</h2>", table(_facts(report), head=False)]
    told = yaml.safe_dump(report.scenario.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    parts.append(f"<h2>Scenario</h2><pre>{escape(told)}</pre>")
    health = yaml.safe_dump(report.service.health, sort_keys=False, allow_unicode=True)
    parts.append(f"<h2>The service's own words (/health)</h2><pre>{escape(health)}</pre>")
    return document(title, parts)


def document(title: str, parts: Sequence[str]) -> str:
    """A page of parts that are HTML; `title` is escaped already."""
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>\n{body}\n</body></html>\n"
    )


def _verdict(report: Report) -> str:
    lines = [
        f'<p class="bad">Not the service\'s figures alone: {escape(problem)}.</p>' for problem in report.bottlenecks
    ]
    wanted = f"{report.scenario.slo.goodput:.0%}"
    if report.missed:
        lines.append(f'<p class="bad">Goodput below {wanted} at: {escape(", ".join(report.missed))}.</p>')
    else:
        lines.append(f'<p class="good">Goodput at least {wanted} at every level.</p>')
    return "".join(lines)


def _facts(report: Report) -> list[tuple[str, str]]:
    software, client = report.software, [level.client for level in report.levels]
    packages = ", ".join(f"{name} {version}" for name, version in software.packages.items())
    where = "this machine too" if report.service.same_machine else "elsewhere"
    return [
        ("date", report.date),
        ("command", report.command),
        ("service", f"{report.service.url}, {where}"),
        ("its Serve config", report.service.config or "not known to the client"),
        ("client's machine", str(report.machine)),
        ("system", report.machine.system),
        ("GPU driver", report.machine.gpu_driver or "none"),
        ("load average at the start", f"{report.machine.load_average:g}"),
        ("commit", software.commit or "unknown"),
        ("versions", f"Python {software.python}, {packages}"),
        ("client's event loop late (p99)", f"{max((one.lag_p99_s for one in client), default=0) * 1000:.1f} ms"),
        ("client's share of a core", f"{max((one.cpu for one in client), default=0):.0%}"),
        ("form of the report", f"version {report.schema_version}"),
    ]


def table(rows: Sequence[Sequence[str]], *, head: bool = True) -> str:
    """Rows of plain text; the first of them a head."""
    lines = []
    for number, row in enumerate(rows):
        cell = "th" if head and number == 0 else "td"
        lines.append("<tr>" + "".join(f"<{cell}>{escape(text)}</{cell}>" for text in row) + "</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'
