"""A day of the service in steps of a second: the policy that scales it is the real one, all else is a model.

What is simplified:

- Utterances are asked for by themselves (Poisson, by the second). A long text is as many utterances as it has
  segments. Nobody leaves early, and who is refused does not come again.
- Every stage makes an utterance as fast as it can, as the service does within one. A replica's work of a second is
  shared: first what keeps listeners from running dry (each is given a second more than it plays), then the rest, in
  proportion. Hops are not seen: what one stage made, the next can use within the same second.
- The batch of a replica is the number of its utterances that have something to do, less where a second's work is
  short and they hardly overlap. Costs do not depend on how far an utterance is, nor on other replicas of the device.
- First audio is the sum of the stages' first chunks at the batch of the replica chosen, after whole seconds of waiting
  for a place; where the sound is not made by then, it counts from the end of the second in which it is.
- A place is held in each stage until that stage has made all of the utterance. New utterances go where fewest are open.
- A lost node's utterances go on elsewhere in the next second, before new ones. What was sent is not made again and its
  tokens are known to the first stage; the stages between make all of it again. Loss is noticed at once; reading known
  tokens costs nothing; replays have no bound.
- Who waits is told from how many utterances found a place in the last seconds; admission knows that and the replicas'
  counts without delay, and so does the policy.
- A replica is ready `start_s` after it was asked for, on any node with room; nothing else fails. The ingress, the voice
  encoder and the network take no time.
- Meters are summed over a stage; Serve sums what each replica has measured itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from loadtest.simulation.plan import Plan
from loadtest.simulation.record import Books, Recorder
from loadtest.simulation.replicas import IntArray, Nodes
from loadtest.simulation.stage import Stage
from loadtest.simulation.stage_costs import Costs
from loadtest.simulation.streams import NOWHERE, Streams
from loadtest.simulation.traffic import lengths, rates

_NOTHING = 1e-9
_AHEAD_S = 1.0
"""What a listener is kept ahead by before anything else is made."""
_NOTICED_S = 10

Progress = Callable[[int], None]


class World:
    """One run; `run` may be called once."""

    def __init__(self, plan: Plan, costs: Costs) -> None:
        self._plan, self._rules = plan, plan.scaling_rules()
        self._rng = np.random.default_rng(plan.seed)
        parts = math.lcm(*(stage.per_device for stage in costs.stages.values()))
        self._nodes = Nodes(plan.cluster.nodes, plan.cluster.devices_per_node, parts)
        self.stages = {
            name: Stage(stage, self._nodes, parts // stage.per_device, gap_free=plan.admission.gap_free)
            for name, stage in costs.stages.items()
        }
        self._all = tuple(self.stages.values())
        self._parts = parts
        self.streams = Streams(len(self._all))
        self.recorder = Recorder(plan, tuple(self.stages))
        self.books = Books.empty(tuple(self.stages))
        self._placed: deque[int] = deque(maxlen=_NOTICED_S)
        self._losses = self._planned_losses()

    def run(self, progress: Progress = lambda _now: None) -> None:
        """From the warm-up to the end; `progress` is told the second."""
        for now, rate in self.seconds():
            self.step(now, rate)
            progress(now)

    def seconds(self) -> Iterator[tuple[int, float]]:
        """Each second with the rate at which utterances are asked for."""
        begin, end = -self._plan.warm_up_s, self._plan.duration_s
        yield from zip(range(begin, end), rates(self._plan.traffic, begin, end).tolist(), strict=True)

    def step(self, now: int, rate: float) -> None:
        """One second."""
        self._count()
        for stage in self._all:
            stage.replicas.settle(now, stage.open)
        self._nodes.bring_back(now)
        for nodes in self._losses.pop(now, []):
            self._lose(nodes, now)
        asked, refused = self._admit(now, rate)
        self._work()
        self._listen(now)
        self._leave(now)
        demand = max(float(len(self.streams)), self._all[-1].made)
        for stage in self._all:
            stage.scale(demand, now, self._rules)
        if now >= 0:
            held = sum(stage.replicas.held * stage.parts for stage in self._all) / self._parts
            waiting = int(np.count_nonzero(self.streams.replica[0] == NOWHERE))
            self.recorder.second(now, asked, refused, len(self.streams), waiting, held, self.stages)

    def _count(self) -> None:
        for number, stage in enumerate(self._all):
            stage.count(self.streams.replica[number], self.streams.audio_s - self.streams.made[number])

    def _planned_losses(self) -> dict[int, list[int]]:
        """Number of nodes lost, by second."""
        cluster, duration = self._plan.cluster, self._plan.duration_s
        found: dict[int, list[int]] = {}
        for loss in cluster.losses:
            found.setdefault(round(loss.at_h * 3600), []).append(loss.nodes)
        expected = cluster.losses_per_node_day * cluster.nodes * duration / 86_400
        for at in self._rng.integers(0, duration, self._rng.poisson(expected)).tolist():
            found.setdefault(at, []).append(1)
        return found

    def _lose(self, count: int, now: int) -> None:
        up = self._nodes.up
        lost = self._rng.choice(up, min(count, len(up)), replace=False)
        streams = self.streams
        hit = np.zeros(len(streams), np.bool_)
        for number, stage in enumerate(self._all):
            slots = stage.replicas.on(lost)
            hit |= np.isin(streams.replica[number], slots) & (streams.made[number] < streams.audio_s - _NOTHING)
            stage.replicas.lose(slots)
        self._nodes.lose(lost, now + max(self._plan.cluster.back_after_s, 1.0))
        chosen = np.flatnonzero(hit)
        self.books.again(streams.replay(chosen))
        self.recorder.lost(now, len(lost), len(chosen))
        self._count()

    def _admit(self, now: int, rate: float) -> tuple[int, int]:
        """Utterances asked for in this second, and those refused. Whoever waits is given places first."""
        streams = self.streams
        waiting = np.flatnonzero(streams.replica[0] == NOWHERE)
        # Replays before those that were never served, and each in order of arrival.
        waiting = waiting[np.argsort(streams.replays[waiting] == 0, kind="stable")]
        room = min(int(stage.free_places().sum()) for stage in self._all)
        again = waiting[:room]
        audio_s = lengths(self._plan.traffic, int(self._rng.poisson(rate)), self._rng)
        asked = len(audio_s)
        served = min(asked, room - len(again))
        limit = self._plan.admission.first_audio_s
        joins = self._may_wait(len(waiting) - len(again), asked - served, limit)
        before = len(streams)
        streams.add(audio_s[: served + joins], now)
        fresh = np.arange(before, before + served)
        self._place(np.concatenate([again, fresh]), now)
        late = np.zeros(len(streams), np.bool_)
        late[fresh] = streams.first_at[fresh] - now > limit
        refused = asked - served - joins + int(np.count_nonzero(late))
        if late.any():
            streams.keep(~late)
        self._placed.append(len(again) + served)
        self.books.admitted += asked - refused
        return asked, refused

    def _may_wait(self, ahead: int, count: int, limit: float) -> int:
        """How many of `count` utterances without a place are told a first audio within the limit, behind `ahead`
        others who wait."""
        if not count:
            return 0
        pace = sum(self._placed) / max(len(self._placed), 1)
        first_s = sum(float(stage.curve.first_s(np.array(stage.places))) for stage in self._all)
        return min(max(int((limit - first_s) * pace) - ahead, 0), count)

    def _place(self, chosen: IntArray, now: int) -> None:
        """Give them replicas in all stages, which must have room."""
        if not len(chosen):
            return
        first_s = np.zeros(len(chosen))
        for number, stage in enumerate(self._all):
            slots = self._rng.permutation(stage.choose(len(chosen)))
            self.streams.replica[number, chosen] = slots
            np.add.at(stage.open, slots, 1)
            first_s += stage.curve.first_s(stage.open[slots])
        # Who hears something already goes on where it is.
        first_at = self.streams.first_at
        first_at[chosen] = np.where(self.streams.started[chosen], first_at[chosen], now + first_s)

    def _work(self) -> None:
        streams = self.streams
        due = np.minimum(streams.heard + 1 + _AHEAD_S, streams.audio_s)
        given = streams.audio_s
        for number, stage in enumerate(self._all):
            made = streams.made[number]
            available = np.maximum(given - made, 0.0)
            urgent = np.clip(due - made, 0.0, available)
            late = np.minimum(streams.heard - made, available)
            made += stage.work(streams.replica[number], available, urgent, float(late[late > 0].sum()))
            given = made

    def _listen(self, now: int) -> None:
        """Listeners play until the end of this second, or run dry."""
        streams = self.streams
        made, end = streams.made[-1], now + 1.0
        audible = made > _NOTHING
        due = ~streams.started & (streams.first_at < end)
        streams.first_at[due & ~audible] = end
        begin = due & audible
        streams.started |= begin
        self.recorder.heard(now, (streams.first_at - streams.arrived)[begin])
        wanted = np.where(streams.started, np.minimum(end - np.maximum(streams.first_at, now), 1.0), 0.0)
        wanted = np.minimum(wanted, streams.audio_s - streams.heard)
        played = np.minimum(wanted, np.maximum(made - streams.heard, 0.0))
        streams.heard[:] += played
        streams.dry_s[:] += wanted - played

    def _leave(self, now: int) -> None:
        """Utterances that are made to their end, and whose listeners have begun to hear it, are done."""
        streams = self.streams
        done = (streams.made[-1] >= streams.audio_s - _NOTHING) & streams.started
        if not done.any():
            return
        finished = np.flatnonzero(done)
        self.books.finished += len(finished)
        audio_s = streams.audio_s[finished]
        self.books.finished_s += float(audio_s.sum())
        first_s = (streams.first_at - streams.arrived)[finished]
        self.recorder.done(now, audio_s, first_s, streams.dry_s[finished], streams.replays[finished])
        streams.keep(~done)
