"""Nodes, and the replicas of each stage on them: starting, running, ending. Knows no streams but their counts.

As Serve does it, the wanted number of replicas is kept up: lost ones are replaced, new ones are spread over the nodes
with most room, and of surplus ones those go first that are not ready yet, then those with the fewest streams, which
take no new ones and end when they have none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


EMPTY, STARTING, RUNNING, DRAINING = range(4)
"""States of a slot for a replica; an empty slot is used again."""


class Nodes:
    """Devices of all nodes, in parts: one device is `parts` of them, so that shares of any stage are whole numbers."""

    def __init__(self, count: int, devices: int, parts: int) -> None:
        self._whole = devices * parts
        self.free = np.full(count, self._whole, np.int64)
        self._back_at = np.zeros(count)

    @property
    def up(self) -> IntArray:
        return np.flatnonzero(self._back_at == 0)

    def take(self, parts: int, count: int) -> IntArray:
        """Nodes for at most `count` replicas of so many parts each, those with most room first, one each in turn."""
        taken: list[IntArray] = []
        while count:
            fitting = np.flatnonzero((self.free >= parts) & (self._back_at == 0))
            if not len(fitting):
                break
            chosen = fitting[np.argsort(-self.free[fitting], kind="stable")][:count]
            self.free[chosen] -= parts
            taken.append(chosen)
            count -= len(chosen)
        return np.concatenate(taken) if taken else np.zeros(0, np.int64)

    def give(self, nodes: IntArray, parts: int) -> None:
        """Replicas on these nodes (one entry each) have ended."""
        np.add.at(self.free, nodes, parts)

    def lose(self, nodes: IntArray, back_at: float) -> None:
        """They are gone until then; whoever has replicas there must have ended them."""
        self._back_at[nodes] = back_at

    def bring_back(self, now: float) -> None:
        back = (self._back_at > 0) & (self._back_at <= now)
        self._back_at[back] = 0
        self.free[back] = self._whole


class Replicas:
    """All replicas of one stage, by slot."""

    def __init__(self, nodes: Nodes, parts: int, start_s: float) -> None:
        self._nodes = nodes
        self._parts = parts
        self._start_s = start_s
        self.state = np.zeros(16, np.int64)
        self._node = np.zeros(16, np.int64)
        self._ready_at = np.zeros(16)

    def __len__(self) -> int:
        """Slots, empty ones included."""
        return len(self.state)

    def count(self, state: int) -> int:
        return int(np.count_nonzero(self.state == state))

    @property
    def held(self) -> int:
        """Replicas that hold a part of a device, in whatever state."""
        return int(np.count_nonzero(self.state))

    @property
    def running(self) -> BoolArray:
        """Per slot: takes new streams."""
        found: BoolArray = self.state == RUNNING
        return found

    def on(self, nodes: IntArray) -> IntArray:
        """Slots with a replica on one of these nodes."""
        return np.flatnonzero((self.state > 0) & np.isin(self._node, nodes))

    def lose(self, slots: IntArray) -> None:
        """They end at once, with their nodes."""
        self.state[slots] = EMPTY

    def settle(self, now: float, open_streams: IntArray) -> None:
        """Those that are due become ready; draining ones without streams end. open_streams: per slot."""
        starting = np.flatnonzero(self.state == STARTING)
        self.state[starting[self._ready_at[starting] <= now]] = RUNNING
        draining = np.flatnonzero(self.state == DRAINING)
        self._end(draining[open_streams[draining] == 0])

    def scale(self, wanted: int, now: float, open_streams: IntArray) -> None:
        """Start or end as many as are missing from, or beyond, `wanted`; as far as devices are free."""
        surplus = self.count(STARTING) + self.count(RUNNING) - wanted
        if surplus < 0:
            self._start(-surplus, now)
        elif surplus > 0:
            starting = np.flatnonzero(self.state == STARTING)
            young = starting[np.argsort(-self._ready_at[starting], kind="stable")][:surplus]
            self._end(young)
            running = np.flatnonzero(self.running)
            idle = running[np.argsort(open_streams[running], kind="stable")][: surplus - len(young)]
            self.state[idle] = DRAINING

    def _start(self, count: int, now: float) -> None:
        nodes = self._nodes.take(self._parts, count)
        empty = np.flatnonzero(self.state == EMPTY)
        if len(empty) < len(nodes):
            more = max(len(self.state), len(nodes))
            self.state = np.concatenate([self.state, np.zeros(more, np.int64)])
            self._node = np.concatenate([self._node, np.zeros(more, np.int64)])
            self._ready_at = np.concatenate([self._ready_at, np.zeros(more)])
            empty = np.flatnonzero(self.state == EMPTY)
        slots = empty[: len(nodes)]
        self.state[slots] = STARTING
        self._node[slots] = nodes
        self._ready_at[slots] = now + self._start_s

    def _end(self, slots: IntArray) -> None:
        if not len(slots):
            return
        self._nodes.give(self._node[slots], self._parts)
        self.state[slots] = EMPTY
