"""Who may be in the engine when there are more utterances than places: whoever's listener runs dry soonest.

vLLM fixes a request's priority when it arrives, and never takes a running one out for a waiting one while there is
memory. So an utterance that is far ahead of its listener gives its place up itself and asks again with the priority it
has by then; one that waits for its text gives it up as soon as another wants it. Knows no vLLM.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Place:
    """One utterance's claim. Deadlines are seconds on the clock of its `Places`."""

    def __init__(self, places: Places, lead_s: float = 0.0) -> None:
        """lead_s: sound that the listener still has before this utterance is heard at all."""
        self._places = places
        self._asking = False
        self._dry_at = places.clock() + lead_s
        self.wanted = False

    @property
    def deadline(self) -> float:
        """When the listener runs dry; one who has heard nothing has waited since the request came."""
        return self._dry_at

    @property
    def priority(self) -> int:
        """Smaller goes first."""
        return int(1000 * (self.deadline - self._places.began))

    def ask(self) -> None:
        """A request is about to be handed to the engine."""
        self._asking = True
        self._places.arrived(self)

    def took(self, tokens: int) -> None:
        """The engine has delivered: the place is held. A listener who ran dry goes on from now."""
        self._places.waiting.pop(self, None)
        if tokens:
            self._dry_at = max(self._dry_at, self._places.clock()) + tokens / self._places.token_rate

    def released(self) -> None:
        """The request has left the engine, finished or not; nothing happens when there was none."""
        if self._asking:
            self._asking = self.wanted = False
            self._places.left(self)

    def should_yield(self) -> bool:
        """Whether someone waits who needs this place so much sooner; if so, that one counts as helped."""
        places = self._places
        neediest = places.neediest
        if neediest is None or self.deadline - max(neediest.deadline, places.clock()) <= places.lead_s:
            return False
        del places.waiting[neediest]
        return True

    @contextmanager
    def resting(self, wake: Callable[[], None]) -> Iterator[None]:
        """Hold the place without using it until another wants it: `wanted` is set then, and `wake` called."""
        self._places.rests(self, wake)
        try:
            yield
        finally:
            self._places.resting.pop(self, None)


class Places:
    """The places of one engine.

    count: sequences that the engine runs at once; lead_s: how much sooner another must run dry for a place to change
    hands; token_rate: speech tokens per second of sound.
    """

    def __init__(
        self, count: int, lead_s: float, token_rate: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.count = count
        self.lead_s = lead_s
        self.token_rate = token_rate
        self.clock = clock
        self.began = clock()
        self.asking = 0
        self.waiting: dict[Place, None] = {}
        self.resting: dict[Place, Callable[[], None]] = {}

    @property
    def neediest(self) -> Place | None:
        """Of those that found all places taken and were not helped yet, the one who runs dry first."""
        if self.asking <= self.count:
            return None
        return min(self.waiting, key=lambda place: place.deadline, default=None)

    def arrived(self, place: Place) -> None:
        self.asking += 1
        self.waiting[place] = None
        self._rouse()

    def left(self, place: Place) -> None:
        self.asking -= 1
        self.waiting.pop(place, None)

    def rests(self, place: Place, wake: Callable[[], None]) -> None:
        self.resting[place] = wake
        self._rouse()

    def _rouse(self) -> None:
        """Ask the one that has rested longest for its place, if someone needs it."""
        neediest = self.neediest
        if neediest is None or not self.resting:
            return
        del self.waiting[neediest]
        place = next(iter(self.resting))
        wake = self.resting.pop(place)
        place.wanted = True
        wake()
