"""What the stages can make, as one ingress replica sees it: audio seconds per second, by how many utterances are made.

Measured on what comes out of the last stage, so it holds whatever the stages are, wherever they run and whoever else
uses them: other ingress replicas have their share of the same stages, and what arrives here is what is left for this
one. Knows neither Ray nor requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_EVIDENCE_S = 2.0
"""Seconds of work before a rate is believed: an utterance works for a while before its first sound."""

_SETTLED = 0.7
"""Share of its memory that a rate must have worked for before a change of it is a change of the stages."""


@dataclass(slots=True)
class _Level:
    """Work at one size of load, older work counting less and less."""

    worked_s: float = 0.0
    made_s: float = 0.0
    seen: float = -math.inf

    @property
    def known(self) -> bool:
        return self.worked_s >= _EVIDENCE_S

    @property
    def rate(self) -> float:
        return self.made_s / self.worked_s


class Capacity:
    """Rates at 1, 2-3, 4-7, 8-15 … utterances at once.

    Stages that batch make more of many than of few, so a rate at few is less than there is, and what was seen lately
    at more counts. A change at one size of load (a replica more or less, a busier machine) is taken to change what was
    seen at larger ones by the same factor.
    """

    def __init__(
        self, *, memory_s: float = 5.0, believed_s: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """memory_s: seconds of work that a rate is an average over; believed_s: how long one that was not seen again
        is believed."""
        self._memory_s = memory_s
        self._believed_s = believed_s
        self._clock = clock
        self._now = clock()
        self._making = 0
        self._levels: list[_Level] = []

    def began(self) -> None:
        """An utterance is being made, until `ended`."""
        self._settle()
        self._making += 1

    def ended(self) -> None:
        self._settle()
        self._making -= 1

    def made(self, audio_s: float) -> None:
        """So much sound of an utterance that is being made has come."""
        if not self._making:
            return
        self._settle()
        level = self._level()
        before = self._settled_rate(level)
        level.made_s += audio_s
        self._scale_above(level, before)

    @property
    def rate(self) -> float | None:
        """Audio seconds per second that can be made, as far as is known; None while nothing is."""
        self._settle()
        oldest = self._now - self._believed_s
        here = self._index(max(self._making, 1))
        at_least = [level.rate for level in self._levels[here:] if level.known and level.seen >= oldest]
        if at_least:
            return max(at_least)
        # More are made now than ever were: no less than what fewer got.
        below = [level.rate for level in self._levels[:here] if level.known and level.seen >= oldest]
        return max(below, default=None)

    def _settle(self) -> None:
        """Count the time since this was called last as work at the present size of load."""
        now = self._clock()
        passed, self._now = now - self._now, now
        if not self._making or passed <= 0:
            return
        level = self._level()
        before = self._settled_rate(level)
        kept = math.exp(-passed / self._memory_s)
        level.worked_s = level.worked_s * kept + passed
        level.made_s *= kept
        level.seen = now
        self._scale_above(level, before)

    def _settled_rate(self, level: _Level) -> float:
        return level.rate if level.worked_s >= _SETTLED * self._memory_s else 0.0

    def _scale_above(self, level: _Level, before: float) -> None:
        if before and level.made_s:
            for above in self._levels[self._levels.index(level) + 1 :]:
                above.made_s *= level.rate / before

    def _level(self) -> _Level:
        index = self._index(self._making)
        while len(self._levels) <= index:
            self._levels.append(_Level())
        return self._levels[index]

    @staticmethod
    def _index(making: int) -> int:
        return making.bit_length() - 1
