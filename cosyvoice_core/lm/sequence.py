"""One utterance inside the torch engine: its plan, its cache, what is fed and what is still to be replayed.

Knows no other sequence. Source: docs/model.md, "Speech-token LM".
"""

from __future__ import annotations

from collections import deque

from cosyvoice_core.errors import EngineError
from cosyvoice_core.lm.body import Span
from cosyvoice_core.lm.cache import KVCache
from cosyvoice_core.lm.plan import Action, Done, Plan, Predict, Wait
from cosyvoice_core.lm.request import StreamRequest, TokenRequest
from cosyvoice_core.lm.sampler import Choice


class TokenSequence:
    """State of one running request.

    Rows that lie between two predictions form a group. Groups are attended to one by one and cut only at
    multiples of `chunk` from their own start, so that a replay, which feeds many groups in one step, and any
    company in the batch leave every hidden state as it was. Where the body cannot promise that anyway
    (`row_exact` is False) unfed groups are joined, which saves attention calls.
    """

    def __init__(self, request: TokenRequest | StreamRequest, plan: Plan, cache: KVCache, *, row_exact: bool) -> None:
        self.plan = plan
        self.cache = cache
        self._row_exact = row_exact
        self._request = request
        self._replay = deque(request.history)
        self._groups: deque[tuple[int, int]] = deque()
        self._grouped = 0
        self._position = 0

    @property
    def unfed(self) -> int:
        """Rows of known groups that no step has fed yet."""
        return self._grouped - self.cache.length

    @property
    def waiting(self) -> bool:
        """Whether only more text can bring this sequence on."""
        return isinstance(self.plan.next(), Wait)

    def advance(self) -> Action:
        """Replay as much history as the plan takes now; return what it wants after that.

        Raises EngineError when the history does not fit the request.
        """
        while True:
            action = self.plan.next()
            if isinstance(action, Done) and self._replay:
                raise EngineError(f"the utterance ends {len(self._replay)} ids before its history does")
            if not isinstance(action, Predict):
                return action
            if len(self.plan.context) > self._grouped:
                start = self._grouped if self._row_exact or not self._groups else self._groups.pop()[0]
                self._groups.append((start, len(self.plan.context)))
                self._grouped = len(self.plan.context)
            if not self._replay:
                return action
            self.take(self._replay.popleft())

    def take(self, id_: int) -> bool:
        """Accept a predicted id; True when it is a speech token."""
        spoken = self.plan.produced(id_)
        self._position += 1
        return spoken

    def choice(self, action: Predict) -> Choice:
        """What the sampler needs to draw the next id."""
        request = self._request
        return Choice(
            config=request.sampling,
            seed=request.seed,
            position=self._position,
            greedy=request.greedy,
            spoken=self.plan.spoken,
            closing=action.closing,
        )

    def spans(self, budget: int, chunk: int) -> list[Span]:
        """Unfed rows in order, whole chunks only, at most `budget` of them but at least one chunk."""
        spans: list[Span] = []
        fed = self.cache.length
        for start, end in self._groups:
            while fed < end:
                rows = min(end, fed + chunk - (fed - start) % chunk) - fed
                if spans and rows > budget:
                    return spans
                spans.append(Span(self.cache, fed, rows))
                budget -= rows
                fed += rows
        return spans

    def fed(self) -> None:
        """Forget the groups that the cache holds completely."""
        while self._groups and self._groups[0][1] <= self.cache.length:
            self._groups.popleft()
