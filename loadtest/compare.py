"""Two reports side by side: what changed by more than the uncertainty of each can explain.

The more figures are compared, the likelier one of them differs by chance; so the intervals are wide enough that all of
them together hold with 95 % (Bonferroni's bound). They know only what happened within the two runs. What differs
between runs (another day, other work on the machine) they do not know; two reports of the same service show how much
that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from loadtest.record import Record, Verdict
from loadtest.report import Level, Report
from loadtest.statistics import CONFIDENCE, Interval, difference, share, share_difference

_FIGURES = 7


class Change(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no difference seen"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure of one level: before, after, and the difference with its interval."""

    level: str
    figure: str
    before: float
    after: float
    difference: Interval
    more_is_better: bool = False

    @property
    def change(self) -> Change:
        if self.difference.low <= 0 <= self.difference.high:
            return Change.UNCLEAR
        return Change.BETTER if (self.difference.value > 0) == self.more_is_better else Change.WORSE


def compare(before: Report, after: Report) -> list[Comparison]:
    """All figures of the levels that both reports have."""
    afters = {level.label: level for level in after.levels}
    pairs = [(level, afters[level.label]) for level in before.levels if level.label in afters]
    confidence = 1 - (1 - CONFIDENCE) / (_FIGURES * max(len(pairs), 1))
    return [comparison for one, other in pairs for comparison in _level(one, other, confidence)]


def differences_of_setting(before: Report, after: Report) -> list[str]:
    """What else differs between the two, so that no figure is compared blindly."""
    aspects = {
        "scenario": (before.scenario, after.scenario),
        "client's machine": (str(before.machine), str(after.machine)),
        "service's config": (before.service.config, after.service.config),
        "model": (before.service.health.get("model"), after.service.health.get("model")),
        "commit": (before.software.commit, after.software.commit),
        "versions": (before.software.packages, after.software.packages),
        "load average at the start": (before.machine.load_average, after.machine.load_average),
    }
    found = []
    for name, (one, other) in aspects.items():
        if one != other:
            found.append(f"{name} differs" + (f": {one} and {other}" if isinstance(one, str | float) else ""))
    for report, which in ((before, "first"), (after, "second")):
        found += [f"in the {which}, {problem}" for problem in report.bottlenecks]
    return found


def render(comparisons: list[Comparison]) -> str:
    """A line per figure."""
    lines = []
    for one in comparisons:
        gap = one.difference
        lines.append(
            f"{one.level:>12}  {one.figure:<24} {one.before:8.3f} -> {one.after:8.3f}   "
            f"{gap.value:+.3f} ({gap.low:+.3f}..{gap.high:+.3f})  {one.change.value}"
        )
    return "\n".join(lines)


def _level(before: Level, after: Level, confidence: float) -> list[Comparison]:
    found = []
    for name, quantile in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95)):
        firsts = [[record.arrivals[0].at_s for record in _heard(level)] for level in (before, after)]
        found.append(_quantile(before.label, f"first audio {name} (s)", firsts, quantile, confidence))
    totals = [[record.ended_s for record in _heard(level) if record.complete] for level in (before, after)]
    found.append(_quantile(before.label, "total p50 (s)", totals, 0.5, confidence))
    silences = [[record.playback.underrun_s for record in _heard(level)] for level in (before, after)]
    found.append(_quantile(before.label, "silence p95 (s)", silences, 0.95, confidence))
    for figure, of in (("goodput", _goodput), ("gap-free", _gap_free)):
        one, other = of(before, confidence), of(after, confidence)
        if one and other:
            change = share_difference(one, other)
            found.append(Comparison(before.label, figure, one.value, other.value, change, more_is_better=True))
    return [comparison for comparison in found if comparison is not None]


def _quantile(
    label: str, figure: str, values: list[list[float]], quantile: float, confidence: float
) -> Comparison | None:
    before, after = values
    if not before or not after:
        return None
    change = difference(before, after, quantile, confidence)
    first = float(np.quantile(before, quantile))
    return Comparison(label, figure, first, first + change.value, change)


def _goodput(level: Level, confidence: float) -> Interval | None:
    verdicts = level.summary.verdicts
    return share(verdicts[Verdict.GOOD], level.summary.requests - verdicts[Verdict.LEFT], confidence)


def _gap_free(level: Level, confidence: float) -> Interval | None:
    found, count = level.summary.continuous, len(_heard(level))
    return share(round(found.value * count), count, confidence) if found else None


def _heard(level: Level) -> list[Record]:
    return [record for record in level.records if not record.warm_up and record.arrivals]
