"""One stage of the simulated service: its replicas, the work they do in a second, what their meters say of it."""

from __future__ import annotations

from collections import deque

import numpy as np

from deployments.autoscaling import ScalingRules, StageLoad, StageMemory, decide
from loadtest.simulation.replicas import IntArray, Nodes, Replicas
from loadtest.simulation.stage_costs import FloatArray, StageCosts

_METER_S = 10
_NOTHING = 1e-9


class Stage:
    """Time goes in steps of a second."""

    def __init__(self, costs: StageCosts, nodes: Nodes, parts: int, *, gap_free: bool) -> None:
        """parts: of a device that a replica takes."""
        self.curve = costs.curve()
        self.places = min(self.curve.places, self.curve.real_time_places()) if gap_free else self.curve.places
        self.replicas = Replicas(nodes, parts, costs.start_s)
        self.parts = parts
        self.wanted = costs.least
        self.made_s = 0.0
        self._least, self._most = costs.least, costs.most
        self._memory = StageMemory()
        self._meter: deque[tuple[float, float]] = deque(maxlen=_METER_S)
        self.open = np.zeros(len(self.replicas), np.int64)

    def count(self, replica: IntArray, unfinished: FloatArray) -> None:
        """Note how many streams each replica has open. replica: slot of each stream, -1 for none."""
        self.open = np.bincount(replica[(unfinished > _NOTHING) & (replica >= 0)], minlength=len(self.replicas))

    def free_places(self) -> IntArray:
        """Per slot."""
        return np.where(self.replicas.running, np.maximum(self.places - self.open, 0), 0)

    def choose(self, count: int) -> IntArray:
        """Slots for so many new streams, always the one with the fewest open streams next; in order of their number.

        There must be as many free places.
        """
        running = np.flatnonzero(self.replicas.running & (self.open < self.places))
        load = self.open[running]
        # Filled like water: `reach[k]` streams fit when all are filled up to k.
        reach = np.cumsum(np.cumsum(np.bincount(load, minlength=self.places)))
        level = int(np.searchsorted(reach, count))
        more = np.maximum(level - load, 0)
        # Those that stand at or below the full level share what remains of the next.
        rest = count - int(more.sum())
        more[np.flatnonzero(load <= level)[:rest]] += 1
        return np.repeat(running, more)

    def work(self, replica: IntArray, available: FloatArray, urgent: FloatArray, owed_s: float) -> FloatArray:
        """Audio seconds made of each stream in this second, of the `available` ones.

        A replica first makes what is `urgent`, as much of everybody's as it can, then the rest; it does not rest while
        anything is available.
        """
        gained = np.zeros(len(replica))
        at_work = np.flatnonzero((available > _NOTHING) & (replica >= 0))
        replica, available, urgent = replica[at_work], available[at_work], urgent[at_work]
        slots = len(self.replicas)
        ready = np.bincount(replica, minlength=slots)
        total, needed = np.bincount(replica, available, slots), np.bincount(replica, urgent, slots)
        # The step loop runs them together only while they overlap: hardly when the second's work is short.
        share = np.minimum(total * self.curve.cost(ready), 1.0)
        cost = self.curve.cost(1 + np.maximum(ready - 1, 0) * share)
        able = 1 / cost
        first = np.minimum(able / np.maximum(needed, _NOTHING), 1.0)
        left = np.maximum(able - needed, 0.0)
        then = np.minimum(left / np.maximum(total - needed, _NOTHING), 1.0)
        gained[at_work] = urgent * first[replica] + (available - urgent) * then[replica]
        made = np.minimum(total, able)
        self.made_s += float(gained.sum())
        self._meter.append((float((made * cost).sum()), float(made.sum())))
        self._owed_s = owed_s
        return gained

    @property
    def made(self) -> float:
        """Audio seconds per second, as the meters say."""
        return sum(made for _, made in self._meter) / max(len(self._meter), 1)

    @property
    def busy(self) -> float:
        """Replica-seconds of work per second, as the meters say."""
        return sum(busy for busy, _ in self._meter) / max(len(self._meter), 1)

    def scale(self, demand: float, now: float, rules: ScalingRules) -> None:
        """Ask the service's own policy, and start or end replicas accordingly."""
        load = StageLoad(
            replicas=int(np.count_nonzero(self.replicas.running)),
            wanted=self.wanted,
            busy=self.busy,
            made=self.made,
            owed_s=self._owed_s,
            least=self._least,
            most=self._most,
        )
        self.wanted, self._memory = decide(load, demand, self._memory, now, rules)
        self.replicas.scale(self.wanted, now, self.open_by_slot())

    def open_by_slot(self) -> IntArray:
        """Streams open on each slot, also those that were added since they were counted."""
        missing = len(self.replicas) - len(self.open)
        return np.pad(self.open, (0, missing)) if missing else self.open
