"""How many replicas each stage needs, from the work that was measured. Pure: no Ray, no clock, no memory of its own.

A stream is open in all stages for its whole life, wherever it waits, so open streams cannot tell which stage is too
small. What can is the cost of a stage: the replica-seconds that it works for one second of audio. All stages together
must keep up with one demand, so a stage needs `demand * cost / utilisation` replicas. It grows only while its replicas
are busy beyond `utilisation`: behind or before a stage that is too small, streams pile up in all of them, and one that
batches has a cost for few streams that says nothing of many. The same function is run by Serve's controller and by the
simulator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class ScalingRules:
    """How careful to be.

    utilisation: share of a replica's time that may be planned; catch_up_s: time in which sound that is owed already
    shall be made up for; growth: most by which a stage grows at once, as a factor (one more is always allowed), and
    grow_every_s how often; shrink_after_s: a stage gets smaller when it has needed less for so long; evidence: audio
    seconds per second below which a measured cost is not believed.
    """

    utilisation: float = 0.7
    catch_up_s: float = 10.0
    growth: float = 2.0
    grow_every_s: float = 5.0
    shrink_after_s: float = 120.0
    evidence: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation is {self.utilisation}; it must be in (0, 1]")
        if self.growth < 1:
            raise ValueError(f"growth is {self.growth}; it must be at least 1")
        if min(self.catch_up_s, self.evidence) <= 0 or min(self.grow_every_s, self.shrink_after_s) < 0:
            raise ValueError("catch_up_s and evidence must be positive, grow_every_s and shrink_after_s not negative")


@dataclass(frozen=True, slots=True)
class StageLoad:
    """What a stage's replicas measured lately, summed over them.

    replicas: those that run; wanted: those that were asked for last, starting ones included; busy: replica-seconds of
    work per second; made: audio seconds per second that it gave; owed_s: audio seconds that it could have made and has
    not; least, most: the bounds of the stage.
    """

    replicas: int
    wanted: int
    busy: float
    made: float
    owed_s: float
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class StageMemory:
    """What is known of a stage from one decision to the next.

    cost: replica-seconds per audio second, None until it was measured; grown_at: when it grew last; low_since: since
    when it has needed fewer replicas than were wanted, None while it does not; low_most: the most it needed since.
    Seconds on the caller's clock.
    """

    cost: float | None = None
    grown_at: float = -math.inf
    low_since: float | None = None
    low_most: int = 0


def decide(
    load: StageLoad, demand: float, memory: StageMemory, now: float, rules: ScalingRules
) -> tuple[int, StageMemory]:
    """Replicas that a stage shall have; demand: audio seconds per second that listeners want of the application."""
    if load.made >= rules.evidence:
        memory = replace(memory, cost=load.busy / load.made)
    need = min(max(_need(load, demand, memory, rules), load.least), load.most)
    wanted = min(max(load.wanted, load.least), load.most)
    if need > wanted:
        memory = replace(memory, low_since=None)
        saturated = load.busy > rules.utilisation * load.replicas
        if not saturated or now - memory.grown_at < rules.grow_every_s:
            return wanted, memory
        return min(need, max(wanted + 1, int(wanted * rules.growth))), replace(memory, grown_at=now)
    if need == wanted:
        return wanted, replace(memory, low_since=None)
    if memory.low_since is None:
        memory = replace(memory, low_since=now, low_most=need)
    memory = replace(memory, low_most=max(memory.low_most, need))
    assert memory.low_since is not None
    if now - memory.low_since < rules.shrink_after_s:
        return wanted, memory
    return memory.low_most, replace(memory, low_since=None)


def _need(load: StageLoad, demand: float, memory: StageMemory, rules: ScalingRules) -> int:
    if memory.cost is None:
        # It has made nothing yet; if it is busy nevertheless, it is too slow for what is wanted.
        return load.wanted + (demand > load.made)
    return math.ceil((demand + load.owed_s / rules.catch_up_s) * memory.cost / rules.utilisation - 1e-9)
