"""How many tokens travel at a time from the language model to the flow decoder.

A hop ends where the flow's attention mask closes a chunk (plus the look-ahead), because tokens beyond it could not
be used yet. Knows counts only. Source: docs/model.md, "Streaming".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cosyvoice_core.config import FlowConfig


@dataclass(frozen=True, slots=True)
class HopPlan:
    """First hop as small as the mask allows (but `min_first_tokens` at least), then growing to `max_tokens`.

    A first hop below about 15 tokens would be played before the next can be ready: the vocoder holds back its right
    context of 0.3 s, so a hop of n tokens gives n / 25 - 0.3 s of sound to bridge the time to the next one.
    """

    min_first_tokens: int = 15
    max_tokens: int = 50

    def __post_init__(self) -> None:
        if self.min_first_tokens < 1:
            raise ValueError(f"min_first_tokens must be at least 1, got {self.min_first_tokens}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")

    def ends(self, prompt_tokens: int, flow: FlowConfig) -> Iterator[int]:
        """Counts of generated tokens after which a hop leaves, without end; an utterance's last hop is cut short."""
        chunk = flow.chunk_tokens
        boundary = chunk - prompt_tokens % chunk
        if boundary < self.min_first_tokens:
            boundary += -(-(self.min_first_tokens - boundary) // chunk) * chunk
        hop = chunk
        longest = max(self.max_tokens // chunk, 1) * chunk
        while True:
            yield boundary + flow.lookahead_tokens
            boundary += hop
            hop = min(2 * hop, longest)


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
