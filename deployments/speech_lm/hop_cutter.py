"""Cuts a run of tokens into hops at given counts. Knows nothing of where tokens come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class HopCutter:
    """Collects tokens and gives them out in hops that end at the counts of a hop plan."""

    def __init__(self, ends: Iterator[int], first: Iterable[int] = ()) -> None:
        """`ends` are growing counts of tokens; `first` are tokens that are known already and leave with the rest."""
        self._ends = ends
        self._end = next(ends)
        self._sent = 0
        self._waiting = list(first)

    def add(self, ids: Iterable[int]) -> Iterator[tuple[int, ...]]:
        """Note tokens; the hops they complete, none of which may be the last of the utterance."""
        self._waiting.extend(ids)
        while self._sent + len(self._waiting) >= self._end:
            count = self._end - self._sent
            hop = tuple(self._waiting[:count])
            del self._waiting[:count]
            self._sent, self._end = self._end, next(self._ends)
            yield hop

    def rest(self) -> tuple[int, ...]:
        """What is left when the utterance has ended; perhaps nothing."""
        left, self._waiting = tuple(self._waiting), []
        return left
