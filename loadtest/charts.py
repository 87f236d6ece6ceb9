"""The charts of a report: which figures are drawn against which."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.record import Record, Verdict
from loadtest.report import Level, Report
from loadtest.statistics import Percentiles
from loadtest.summary import OUTSIDE
from loadtest.svg import Axis, Chart, Point

_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f7f7f", "#8c564b")
_VERDICTS = {
    Verdict.GOOD: "#009e73",
    Verdict.LATE: "#d55e00",
    Verdict.GAPS: "#cc79a7",
    Verdict.FAILED: "#b00020",
    Verdict.LEFT: "#7f7f7f",
}
# A stage's waiting is the pale form of its working.
_STAGES = {
    "ingress": "#7b6fae",
    "voice": "#a99fd6",
    "text-wait": "#d3cdea",
    "lm-wait": "#9ccbe8",
    "lm": "#0072b2",
    "flow-prepare": "#f6d4b8",
    "flow-wait": "#eda774",
    "flow": "#d55e00",
    "vocoder-prepare": "#c9ebdf",
    "vocoder-wait": "#84cfb5",
    "vocoder": "#009e73",
    "hops": "#8a8a8a",
    OUTSIDE: "#c4c4c4",
}


def charts(report: Report) -> list[Chart]:
    """All charts that the report has figures for."""
    drawn = [first_audio_cdf(report), load_curve(report), stage_bars(report), worst_playback(report)]
    drawn += [timeline(report, level) for level in report.levels]
    return [chart for chart in drawn if chart is not None]


def first_audio_cdf(report: Report) -> Chart | None:
    """Share of requests whose first audio had come, over the time since their intended start."""
    heard = [
        (level, sorted(record.arrivals[0].at_s for record in _measured(level) if record.arrivals))
        for level in report.levels
    ]
    if not any(values for _, values in heard):
        return None
    x = Axis.over(
        "seconds from the intended start to the first audio", [value for _, values in heard for value in values]
    )
    chart = Chart("First audio: share of listeners who hear something", x, Axis("share of requests", 0, 1))
    for (level, values), color in zip(heard, _colors(), strict=False):
        # Those who left before they heard anything say nothing of what they would have heard.
        asked = sum(bool(record.arrivals or record.failure) for record in _measured(level))
        points: list[Point] = [(0.0, 0.0)]
        points += [(value, (number + 1) / asked) for number, value in enumerate(values)]
        if values:
            chart.steps([*points, (x.high, len(values) / asked)], color, level.label)
    chart.mark_x(report.scenario.slo.first_audio_s, "SLO")
    return chart


def load_curve(report: Report) -> Chart | None:
    """Percentiles of first audio over the load, with their uncertainty."""
    found = [(level, level.summary.first_audio) for level in report.levels if level.summary.first_audio]
    if len(found) < 2:
        return None
    names = tuple((float(number), level.label) for number, (level, _) in enumerate(found))
    tops = [first.p95.high for _, first in found if first]
    x = Axis("load", -0.5, len(found) - 0.5, names)
    chart = Chart("First audio under load", x, Axis.over("seconds", [*tops, report.scenario.slo.first_audio_s]))
    for quantile, color in zip(("p50", "p90", "p95"), _SERIES, strict=False):
        points = []
        for number, (_, first) in enumerate(found):
            assert isinstance(first, Percentiles)
            interval = getattr(first, quantile)
            chart.whisker(number, interval.low, interval.high, color)
            points.append((float(number), interval.value))
        chart.line(points, color, quantile)
        chart.dots(points, color)
    chart.mark_y(report.scenario.slo.first_audio_s, "SLO")
    return chart


def stage_bars(report: Report) -> Chart | None:
    """Where the time of the first audio went, by the service's account: all requests, and the slowest tenth."""
    told = [level for level in report.levels if level.summary.stages]
    if not told:
        return None
    rows = [(level, slowest) for level in told for slowest in (False, True)]
    count = len(rows)
    names = tuple(
        (float(count - number), f"{level.label}, slowest" if slowest else level.label)
        for number, (level, slowest) in enumerate(rows)
    )
    totals = [
        sum(max(part.slowest_s if slowest else part.mean_s, 0) for part in level.summary.stages)
        for level, slowest in rows
    ]
    height = 98 + 22 * count
    x = Axis.over("seconds to the first audio (mean; slowest: mean of the slowest tenth)", totals)
    chart = Chart("Where the time to the first audio goes", x, Axis("", 0.3, count + 0.7, names), height, 120)
    for number, (level, slowest) in enumerate(rows):
        at = 0.0
        for part in level.summary.stages:
            seconds = max(part.slowest_s if slowest else part.mean_s, 0.0)
            color = _STAGES.get(part.name, _SERIES[-1])
            chart.bar(at, at + seconds, count - number, 0.7, color, f"{part.name}: {seconds * 1000:.0f} ms")
            if seconds > 0.01 * x.high:
                chart.name(part.name, color)
            at += seconds
    return chart


def timeline(report: Report, level: Level) -> Chart:
    """Each request at its intended start, as high as its first audio was late; how many ran meanwhile."""
    last = max([level.measured_until_s, *(record.intended_s for record in level.records)])
    running = _running(level.records)
    latencies = [record.first_audio_s or record.ended_s for record in level.records]
    top = [*latencies, report.scenario.slo.first_audio_s]
    title = f"{level.label}: first audio of each request, and requests running (steps, in tenths)"
    chart = Chart(
        title,
        Axis("seconds since the level began (intended start)", 0, last),
        Axis.over("seconds", [*top, *(count / 10 for _, count in running)]),
    )
    if report.scenario.warm_up_s:
        chart.shade(0, report.scenario.warm_up_s, "warm-up, excluded")
    chart.steps([(at, count / 10) for at, count in running], "#bdbdbd")
    for verdict, color in _VERDICTS.items():
        points = [
            (record.intended_s, record.first_audio_s or record.ended_s)
            for record in level.records
            if record.verdict(report.scenario.slo) is verdict
        ]
        chart.dots(points, color, verdict.value)
    chart.mark_y(report.scenario.slo.first_audio_s, "SLO")
    return chart


def worst_playback(report: Report) -> Chart | None:
    """The request with the longest silence: audio that had come, and audio that a player had played."""
    heard = [(level, record) for level in report.levels for record in _measured(level) if record.arrivals]
    if not heard:
        return None
    level, record = max(heard, key=lambda one: (one[1].playback.underrun_s, len(one[1].arrivals)))
    came: list[Point] = []
    played: list[Point] = [(record.arrivals[0].at_s, 0.0)]
    total = 0.0
    for arrival in record.arrivals:
        since, heard_s = played[-1]
        # The player is at `heard_s` since `since`; it stops where the audio ends.
        dry_at = since + total - heard_s
        if arrival.at_s > dry_at:
            played += [(dry_at, total), (arrival.at_s, total)]
        total += arrival.audio_s
        came.append((arrival.at_s, total))
    end = played[-1][0] + total - played[-1][1]
    played.append((end, total))
    title = f"The longest silence: {record.playback.underrun_s:.2f} s at {level.label}, request {record.request_id}"
    chart = Chart(title, Axis.over("seconds from the intended start", [end]), Axis.over("seconds of audio", [total]))
    chart.steps([*came, (end, total)], _SERIES[0], "audio that has come")
    chart.line(played, _SERIES[1], "audio played", dashed=True)
    return chart


def _measured(level: Level) -> list[Record]:
    return [record for record in level.records if not record.warm_up]


def _running(records: Sequence[Record]) -> list[Point]:
    changes = [(record.intended_s, 1) for record in records]
    changes += [(record.intended_s + record.ended_s, -1) for record in records]
    count, points = 0, []
    for at, change in sorted(changes):
        count += change
        points.append((at, float(count)))
    return points


def _colors() -> list[str]:
    return list(_SERIES) * 8
