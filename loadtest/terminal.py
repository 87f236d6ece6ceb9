"""A report for a terminal: tables of plain text, and progress bars. Also the Markdown form of the table for pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tqdm import tqdm

from loadtest.report import Level, Report
from loadtest.runner import Progress
from loadtest.session import PlannedLevel
from loadtest.statistics import Percentiles
from loadtest.summary import OUTSIDE, Summary

# What a level is in one line.
HEAD = (
    "load",
    "requests",
    "failed",
    "goodput",
    "first audio p50",
    "p90",
    "p95",
    "p99",
    "gap-free",
    "RTF stream",
    "RTF total",
    "audio s/s",
    "at once",
)


def table(report: Report) -> str:
    """One line per level."""
    return aligned([HEAD, *(level_row(level) for level in report.levels)])


def markdown(report: Report) -> str:
    """The same as a table of a Markdown page."""
    rows = [HEAD, tuple("---" for _ in HEAD), *(level_row(level) for level in report.levels)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def stage_rows(report: Report) -> list[tuple[str, ...]]:
    """Where the first audio's time went, in milliseconds: mean of all / mean of the slowest tenth, a level a column.
    Empty when the service gave no account."""
    told = [level for level in report.levels if level.summary.stages]
    names = list(dict.fromkeys(stage.name for level in told for stage in level.summary.stages))
    names = [name for name in names if name != OUTSIDE] + [OUTSIDE] * (OUTSIDE in names)
    rows = [("ms of first audio", *(level.label for level in told))]
    for name in names:
        found = [{stage.name: stage for stage in level.summary.stages}.get(name) for level in told]
        if any(stage and max(stage.mean_s, stage.slowest_s) >= 0.0005 for stage in found):
            cells = (f"{stage.mean_s * 1000:.0f} / {stage.slowest_s * 1000:.0f}" if stage else "" for stage in found)
            rows.append((name, *cells))
    return rows if told else []


def render(report: Report) -> str:
    """Everything a terminal shows after a run."""
    slo = report.scenario.slo
    lines = [
        f"{report.scenario.name}: {report.scenario.description}".rstrip(": "),
        f"{report.service.url}, client on {report.machine}, load average {report.machine.load_average:g} at the start",
        f"good: first audio within {slo.first_audio_s:g} s and gap-free with {slo.gap_tolerance_s * 1000:g} ms of "
        f"patience; warm-up of {report.scenario.warm_up_s:g} s excluded; times in seconds from the intended start",
        "",
        table(report),
    ]
    if report.service.gpus:
        each = ", ".join(f"{level.label} {level.summary.audio_per_s_per_gpu or 0:.2f}" for level in report.levels)
        lines += ["", f"seconds of audio per second and GPU ({report.service.gpus}): {each}"]
    rows = stage_rows(report)
    if rows:
        lines += ["", "mean / mean of the slowest tenth, by the service's own account:", aligned(rows)]
    lines += ["", *(f"{level.label}: {_errors(level.summary)}" for level in report.levels if level.summary.errors)]
    lines += [f"NOT THE SERVICE'S FIGURES ALONE: {problem}" for problem in report.bottlenecks]
    if report.missed:
        lines.append(f"SLO missed (goodput below {slo.goodput:.0%}) at: {', '.join(report.missed)}")
    else:
        lines.append(f"SLO kept at every level (goodput at least {slo.goodput:.0%})")
    return "\n".join(lines)


def progress_bars(whole_s: float, *, quiet: bool = False) -> Callable[[PlannedLevel], Progress]:
    """A bar per level: its seconds, requests running and done."""

    def tell(planned: PlannedLevel) -> Progress:
        bar = tqdm(
            total=round(whole_s, 1),
            desc=planned.label,
            unit="s",
            disable=quiet or None,
            bar_format="{desc:>12} |{bar:30}| {n:.0f}/{total:.0f} s{postfix}",
        )

        def progress(seconds: float, running: int, done: int) -> None:
            bar.n = min(max(seconds, 0), whole_s)
            bar.set_postfix_str(f"{running} running, {done} done")
            if running == 0 and seconds > whole_s:
                bar.close()

        return progress

    return tell


def level_row(level: Level) -> tuple[str, ...]:
    """One level under `HEAD`."""
    summary = level.summary
    first = summary.first_audio
    return (
        level.label,
        str(summary.requests),
        str(sum(summary.errors.values())),
        f"{summary.goodput.value:.1%}" if summary.goodput else "-",
        f"{first.p50.value:.2f} ({first.p50.low:.2f}..{first.p50.high:.2f})" if first else "-",
        *(_quantile(first, name) for name in ("p90", "p95", "p99")),
        f"{summary.continuous.value:.1%}" if summary.continuous else "-",
        f"{summary.stream_rtf.p50.value:.2f}" if summary.stream_rtf else "-",
        f"{summary.total_rtf.p50.value:.2f}" if summary.total_rtf else "-",
        f"{summary.audio_per_s:.2f}",
        f"{summary.running:.1f}",
    )


def _quantile(found: Percentiles | None, name: str) -> str:
    """A percentile; `~` marks one with fewer than five values beyond it."""
    if found is None:
        return "-"
    return f"{'~' if name in found.unsure else ''}{getattr(found, name).value:.2f}"


def _errors(summary: Summary) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(summary.errors.items()))


def aligned(rows: Iterable[Sequence[str]]) -> str:
    """Columns to the right, as wide as they must be."""
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table)
