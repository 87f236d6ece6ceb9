"""A gate: those who are in, and those who wait in order of priority, then of arrival. Knows not what is behind it."""

from __future__ import annotations

import asyncio
import bisect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


class NoRoomError(Exception):
    """The queue in front of the gate is full of callers that are no less urgent."""


@dataclass(order=True, slots=True)
class _Waiting:
    key: tuple[int, int]
    opened: asyncio.Future[None] = field(compare=False)


class Gate:
    """Lets callers in while `fits` says that one more fits; everyone who was let in leaves once."""

    def __init__(self, fits: Callable[[int], bool], max_waiting: int) -> None:
        """fits: whether one more may come in beside so many."""
        self._fits = fits
        self.max_waiting = max_waiting
        self._numbers = itertools.count()
        self._waiting: list[_Waiting] = []
        self.inside = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def ahead_of(self, priority: int) -> int:
        """Callers who wait and would be let in before a new one of this priority."""
        return bisect.bisect(self._waiting, (-priority, next(self._numbers)), key=lambda one: one.key)

    def opens_for(self, priority: int) -> bool:
        """Whether a new caller of this priority is let in at once."""
        return not self.ahead_of(priority) and self._fits(self.inside)

    async def enter(self, priority: int) -> None:
        """Return when let in. Raises NoRoomError, also later when a more urgent caller takes the place in the queue."""
        if self.opens_for(priority):
            self.inside += 1
            return
        if len(self._waiting) >= self.max_waiting:
            if not self._waiting or self._waiting[-1].key[0] <= -priority:
                raise NoRoomError
            displaced = self._waiting.pop().opened
            if not displaced.done():
                displaced.set_exception(NoRoomError())
        opened = asyncio.get_running_loop().create_future()
        waiting = _Waiting((-priority, next(self._numbers)), opened)
        bisect.insort(self._waiting, waiting)
        try:
            await opened
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif opened.done() and not opened.cancelled() and opened.exception() is None:
                # Let in and cancelled in the same moment.
                self.leave()
            raise

    def leave(self) -> None:
        self.inside -= 1
        self.admit()

    def admit(self) -> None:
        """Let in whoever fits by now."""
        while self._waiting and self._fits(self.inside):
            opened = self._waiting.pop(0).opened
            # One that was cancelled just now has not left the queue itself yet.
            if not opened.done():
                self.inside += 1
                opened.set_result(None)
