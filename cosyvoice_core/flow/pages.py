"""Who holds which page of the flow's cache memory. A page is the room of one chunk, in every layer and every step.

Pages have numbers only: the memory they stand for is elsewhere (`memory.py`). A page behind another one is given out
where possible, because attention reads a run of pages in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """Pages first, first + 1, ..., stop - 1."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


def runs(pages: Sequence[int]) -> list[Run]:
    """Pages in order as the longest runs there are."""
    found: list[Run] = []
    for page in pages:
        if found and found[-1].stop == page:
            found[-1] = Run(found[-1].first, page + 1)
        else:
            found.append(Run(page, page + 1))
    return found


class PagePool:
    """A fixed number of pages, each held by as many as read it; free when nobody does."""

    def __init__(self, count: int) -> None:
        if count < 0:
            raise ValueError(f"a pool needs 0 pages or more, got {count}")
        self.count = count
        self._holders = [0] * count
        self.free = count

    def take(self, after: int | None = None) -> int | None:
        """A free page, the one behind page `after` if it is free, else one with much room behind it.

        None when there is none. The taker holds it once.
        """
        if self.free == 0:
            return None
        page = self._roomiest() if after is None or not self._is_free(after + 1) else after + 1
        self._holders[page] = 1
        self.free -= 1
        return page

    def hold(self, pages: Iterable[int]) -> None:
        """One more reader of pages that somebody holds."""
        for page in pages:
            if self._holders[page] == 0:
                raise ValueError(f"page {page} is free and cannot be shared")
            self._holders[page] += 1

    def give(self, pages: Iterable[int]) -> None:
        """One reader less; raises ValueError for a page that nobody holds."""
        for page in pages:
            if self._holders[page] == 0:
                raise ValueError(f"page {page} was given back already")
            self._holders[page] -= 1
            self.free += self._holders[page] == 0

    def _is_free(self, page: int) -> bool:
        return page < self.count and self._holders[page] == 0

    def _roomiest(self) -> int:
        """Where a new run disturbs the others least: the middle of the longest free gap, or its start at the edge."""
        best = Run(0, 0)
        start: int | None = None
        for page in range(self.count + 1):
            if self._is_free(page):
                start = page if start is None else start
            elif start is not None:
                best, start = max(best, Run(start, page), key=len), None
        # Whoever ends where the gap begins may still grow into it.
        return best.first if best.first == 0 else best.first + len(best) // 2
