"""A simulated day in charts, and as a page. Knows results, not how they came about."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import yaml

from loadtest.html import document, table
from loadtest.simulation.result import Result
from loadtest.svg import Axis, Chart, Point

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9")
_POINTS = 240
"""A chart is not wide enough for more."""


def charts(result: Result) -> dict[str, Chart]:
    """All charts by a short name."""
    return {"traffic": _traffic(result), "replicas": _replicas(result), "first-audio": _first_audio(result)}


def rows(result: Result) -> list[tuple[str, str]]:
    """The summary as names and values."""
    found, slo = result.summary, result.plan.slo
    first = found.first_audio
    return [
        ("asked for", f"{found.asked:,} utterances, {found.audio_hours:,.0f} hours of audio heard"),
        ("rejected", f"{found.rejected:,} ({found.rejected_share:.2%})"),
        (
            "first audio",
            ", ".join(f"{name} {_seconds(getattr(first, name))}" for name in ("p50", "p95", "p99")),
        ),
        ("ran dry", f"{found.dry:,} ({found.dry_share:.4%}), {found.silence_s:,.0f} s of silence in all"),
        ("replayed", f"{found.replayed:,}, after {sum(loss.nodes for loss in result.losses)} lost nodes"),
        ("goodput", f"{found.goodput:.2%} (wanted: {slo.goodput:.0%} within {slo.first_audio_s:g} s and gap-free)"),
        ("cost", f"{found.gpu_hours:,.0f} device-hours, at most {found.peak_devices:,.0f} devices at once"),
    ]


def stage_rows(result: Result) -> list[tuple[str, ...]]:
    """Replicas of each stage over the time, and the share of their time at work."""
    lines: list[tuple[str, ...]] = [("replicas running", "fewest", "mean", "most", "most wanted", "busy, mean")]
    for name, stage in result.stages.items():
        running = stage.running
        mean, busy = sum(running) / len(running), sum(stage.busy) / len(stage.busy)
        lines.append((name, f"{min(running)}", f"{mean:.0f}", f"{max(running)}", f"{max(stage.wanted)}", f"{busy:.0%}"))
    return lines


def page(result: Result) -> str:
    """One HTML page that needs nothing else."""
    title = escape(f"Simulated day: {result.plan.name}")
    software = ", ".join(f"{name} {version}" for name, version in result.software.packages.items())
    facts = [
        ("date", result.date),
        ("command", result.command),
        ("seed", str(result.plan.seed)),
        ("commit", result.software.commit or "unknown"),
        ("versions", f"Python {result.software.python}, {software}"),
        ("a device is", result.costs.device),
        ("costs measured", result.costs.measured),
    ]
    parts = [
        f"<h1>{title}</h1><p>{escape(result.plan.description)}</p>",
        "<p>Simulated, not measured: the service's own scaling policy against recorded costs of its stages "
        "(loadtest/simulation/world.py lists what is simplified).</p>",
        table(rows(result), head=False),
        table(stage_rows(result)),
        "<div class=plots>",
        *(f"<div>{chart.render()}</div>" for chart in charts(result).values()),
        "</div><h2>From what</h2>",
        table(facts, head=False),
    ]
    for name, settings in (("Plan", result.plan), ("Costs", result.costs)):
        told = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        parts.append(f"<h2>{name}</h2><pre>{escape(told)}</pre>")
    return document(title, parts)


def _traffic(result: Result) -> Chart:
    served = [asked - refused for asked, refused in zip(result.asked_per_s, result.refused_per_s, strict=True)]
    y = Axis.over("utterances per second", result.asked_per_s)
    chart = Chart("Traffic: asked for, and let in", _hours(result), y)
    chart.line(_over_time(result, result.asked_per_s), _COLORS[3], "asked for")
    chart.line(_over_time(result, served), _COLORS[0], "let in")
    _mark_losses(result, chart)
    return chart


def _replicas(result: Result) -> Chart:
    most = [max(max(stage.running), max(stage.wanted)) for stage in result.stages.values()]
    chart = Chart("Replicas of each stage: running, and wanted (dashed)", _hours(result), Axis.over("replicas", most))
    for (name, stage), color in zip(result.stages.items(), _COLORS * len(result.stages), strict=False):
        chart.line(_over_time(result, stage.wanted), color, dashed=True)
        chart.line(_over_time(result, stage.running), color, name)
    _mark_losses(result, chart)
    return chart


def _first_audio(result: Result) -> Chart:
    spans = result.first_audio
    top = [span.p99 for span in spans if span.p99 is not None]
    chart = Chart("First audio", _hours(result), Axis.over("seconds", [*top, result.plan.slo.first_audio_s]))
    for name, color in zip(("p50", "p95", "p99"), _COLORS, strict=False):
        values = [(number, getattr(span, name)) for number, span in enumerate(spans)]
        points = [((number + 0.5) * result.span_s / 3600, value) for number, value in values if value is not None]
        chart.line(points, color, name)
    chart.mark_y(result.plan.slo.first_audio_s, "SLO")
    _mark_losses(result, chart)
    return chart


def _mark_losses(result: Result, chart: Chart) -> None:
    """Losses of several nodes at once; those of single ones would hide the rest."""
    for loss in result.losses:
        if loss.nodes > 1 and loss.at_s >= 0:
            chart.mark_x(loss.at_s / 3600, f"{loss.nodes} nodes lost")


def _hours(result: Result) -> Axis:
    return Axis("hours", 0.0, result.plan.duration_s / 3600)


def _over_time(result: Result, values: Sequence[float]) -> list[Point]:
    """The mean of as many samples as make a point."""
    width = -(-len(values) // _POINTS)
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    ends = [(number * width + len(part) / 2) * result.sample_s / 3600 for number, part in enumerate(parts)]
    return [(end, sum(part) / len(part)) for end, part in zip(ends, parts, strict=True)]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
