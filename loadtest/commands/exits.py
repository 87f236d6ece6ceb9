"""Exit codes, for use in CI."""

from __future__ import annotations

from enum import IntEnum

from loadtest.report import Report


class Exit(IntEnum):
    """What a command found. `WRONG`: arguments or files cannot be used. `INVALID`: nothing was measured that could be
    trusted, as the service did not answer or the client itself was too slow."""

    KEPT = 0
    MISSED = 1
    WRONG = 2
    INVALID = 3


def exit_of(report: Report) -> Exit:
    """An invalid measurement is neither good nor bad news."""
    if report.bottlenecks:
        return Exit.INVALID
    return Exit.MISSED if report.missed else Exit.KEPT
