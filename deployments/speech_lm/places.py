"""Who may be in the engine when there are more utterances than places: whoever's listener runs dry soonest.

vLLM fixes a request's priority when it arrives, and never takes a running one out for a waiting one while there is
memory. So an utterance that is far ahead of its listener gives its place up itself and asks again with the priority it
has by then. Knows no vLLM.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Place:
    """One utterance's claim. Deadlines are seconds on the clock of its `Places`."""

    def __init__(self, places: Places, lead_s: float = 0.0) -> None:
        """lead_s: sound that the listener still has before this utterance is heard at all."""
        self._places = places
        self._started = False
        self._tokens = 0
        self._heard_from = places.clock() + lead_s

    @property
    def deadline(self) -> float:
        """When the listener runs dry; one who has heard nothing has waited since the request came."""
        return self._heard_from + self._tokens / self._places.token_rate

    @property
    def priority(self) -> int:
        """Smaller goes first."""
        return int(1000 * (self.deadline - self._places.began))

    def ask(self) -> None:
        """A request is about to be handed to the engine."""
        self._places.waiting[self] = self.deadline
        self._places.asking += 1

    def took(self, tokens: int) -> None:
        """The engine has delivered: the place is held."""
        self._places.waiting.pop(self, None)
        if not self._started:
            self._started = True
            self._heard_from = max(self._heard_from, self._places.clock())
        self._tokens += tokens

    def released(self) -> None:
        """The request has left the engine, finished or not."""
        self._places.waiting.pop(self, None)
        self._places.asking -= 1

    def should_yield(self) -> bool:
        """Whether someone waits who needs this place so much sooner; if so, that one counts as helped."""
        places = self._places
        if places.asking <= places.count or not places.waiting:
            return False
        neediest = min(places.waiting, key=lambda place: places.waiting[place])
        lead = self.deadline - max(places.waiting[neediest], places.clock())
        if lead <= places.lead_s:
            return False
        del places.waiting[neediest]
        return True


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
        self.waiting: dict[Place, float] = {}
