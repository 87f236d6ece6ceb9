"""A listener's player, simulated where audio leaves: what a network adds is not in it. Knows no requests."""

from __future__ import annotations

import time
from collections.abc import Callable

HIDDEN_S = 0.1
"""Silence between chunks that a player with a small buffer of its own hides."""


class Player:
    """Starts with the first chunk, falls silent when it runs dry, and goes on with the next chunk.

    The sum of its silences is also the greatest delay of any chunk behind its place in the playback: a player that
    starts so much later never falls silent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._dry_at = 0.0
        self.first_at: float | None = None
        self.silence_s = 0.0

    def take(self, audio_s: float) -> float | None:
        """A chunk leaves now. Seconds of audio that were left, below zero for how long none was; None for the first."""
        now = self._clock()
        if self.first_at is None:
            self.first_at, self._dry_at = now, now + audio_s
            return None
        ahead_s = self._dry_at - now
        self.silence_s += max(-ahead_s, 0.0)
        self._dry_at = max(self._dry_at, now) + audio_s
        return ahead_s
