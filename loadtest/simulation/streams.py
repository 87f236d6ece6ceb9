"""All open utterances as columns: how far each stage is with each, on which replicas, and what its listener hears."""

from __future__ import annotations

import numpy as np

from loadtest.simulation.replicas import BoolArray, IntArray
from loadtest.simulation.stage_costs import FloatArray

NOWHERE = -1


class Streams:
    """Columns grow at the end as utterances come and close up as they leave, so they stay in order of arrival.

    made: (stages, n) audio seconds that each stage has made; replica: (stages, n) slots, NOWHERE while an utterance
    waits for places; audio_s: length; first_at: when its first audio is due; heard: audio seconds its listener has
    played, started: whether it plays; dry_s: silence amid it; replays: times it lost a replica.
    """

    def __init__(self, stages: int) -> None:
        self.made: FloatArray = np.zeros((stages, 0))
        self.replica: IntArray = np.zeros((stages, 0), np.int64)
        self._hold(np.zeros((6, 0)))
        self.started: BoolArray = np.zeros(0, np.bool_)

    def __len__(self) -> int:
        return len(self.started)

    def add(self, audio_s: FloatArray, arrived: float) -> None:
        """Utterances that were admitted now; they have no places yet."""
        count, stages = len(audio_s), len(self.made)
        facts = np.zeros((6, count))
        facts[0], facts[1], facts[2] = audio_s, arrived, np.inf
        self._hold(np.concatenate([self._facts, facts], axis=1))
        self.made = np.concatenate([self.made, np.zeros((stages, count))], axis=1)
        self.replica = np.concatenate([self.replica, np.full((stages, count), NOWHERE)], axis=1)
        self.started = np.concatenate([self.started, np.zeros(count, np.bool_)])

    def keep(self, mask: BoolArray) -> None:
        """Only these go on."""
        chosen = np.flatnonzero(mask)
        self._hold(self._facts.take(chosen, axis=1))
        self.made = self.made.take(chosen, axis=1)
        self.replica = self.replica.take(chosen, axis=1)
        self.started = self.started[chosen]

    def replay(self, chosen: IntArray) -> FloatArray:
        """They lost a replica and wait for new places; the audio seconds that each stage makes again, (stages,).

        What has left the last stage is sent and never made again, and its tokens are known to the first stage; the
        stages between start from the first token.
        """
        before = self.made[:, chosen]
        after = np.zeros_like(before)
        after[0] = after[-1] = before[-1]
        self.made[:, chosen] = after
        self.replica[:, chosen] = NOWHERE
        self.replays[chosen] += 1
        again: FloatArray = (before - after).sum(axis=1)
        return again

    def _hold(self, facts: FloatArray) -> None:
        """One block of memory for all columns of numbers, so that they come and go at once; each is a view of it."""
        self._facts = facts
        self.audio_s: FloatArray
        self.arrived: FloatArray
        self.first_at: FloatArray
        self.heard: FloatArray
        self.dry_s: FloatArray
        self.replays: FloatArray
        self.audio_s, self.arrived, self.first_at, self.heard, self.dry_s, self.replays = facts
