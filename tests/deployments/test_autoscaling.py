"""The scaling decision against traces of load: one stage is short, all are idle, costs that are not known yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.autoscaling import ScalingRules, StageLoad, StageMemory, decide

RULES = ScalingRules()
COSTS = {"SpeechLM": 0.05, "FlowDecoder": 0.3, "Vocoder": 0.04}


def load(**changes: float) -> StageLoad:
    plain = StageLoad(replicas=1, wanted=1, busy=0.0, made=0.0, owed_s=0.0, least=1, most=100)
    return replace(plain, **changes)  # type: ignore[arg-type]


@dataclass
class Stages:
    """Stages of fixed cost that make what their slowest one can, and get a replica `start_s` after it was asked for."""

    costs: Mapping[str, float]
    start_s: float = 20.0
    running: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    memories: dict[str, StageMemory] = field(default_factory=dict)
    starting: list[tuple[float, str]] = field(default_factory=list)
    changes: list[tuple[float, str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.running = dict.fromkeys(self.costs, 1)
        self.wanted = dict.fromkeys(self.costs, 1)
        self.memories = {stage: StageMemory() for stage in self.costs}

    def run(self, seconds: int, demand: Callable[[int], float], begin: int = 0) -> None:
        for now in range(begin, begin + seconds):
            for ready, stage in [one for one in self.starting if one[0] <= now]:
                self.starting.remove((ready, stage))
                self.running[stage] += 1
            made = min(demand(now), *(self.running[stage] / cost for stage, cost in self.costs.items()))
            for stage, cost in self.costs.items():
                seen = load(
                    replicas=self.running[stage], wanted=self.wanted[stage], busy=min(made * cost, 1e9), made=made
                )
                target, self.memories[stage] = decide(seen, demand(now), self.memories[stage], now, RULES)
                if target != self.wanted[stage]:
                    self.changes.append((now, stage, target))
                self.starting += [(now + self.start_s, stage)] * (target - self.wanted[stage])
                if target < self.running[stage]:
                    self.running[stage] = target
                self.wanted[stage] = target


def test_a_load_step_makes_the_bottleneck_grow_and_no_other() -> None:
    stages = Stages(COSTS)
    stages.run(120, lambda now: 1.0 if now < 30 else 12.0)
    assert {stage for _, stage, _ in stages.changes} == {"FlowDecoder"}
    assert stages.running == {"SpeechLM": 1, "FlowDecoder": 6, "Vocoder": 1}
    first = min(now for now, _, _ in stages.changes)
    assert first == 30, "growth begins at once"


def test_afterwards_it_goes_back_to_the_minimum_and_stays() -> None:
    stages = Stages(COSTS)
    stages.run(1000, lambda now: 12.0 if 30 <= now < 150 else 0.5)
    assert stages.running == dict.fromkeys(COSTS, 1)
    shrinks = [now for now, _, target in stages.changes if target == 1]
    assert shrinks == [150 + RULES.shrink_after_s]


def test_a_load_that_swings_faster_than_it_shrinks_costs_no_restarts() -> None:
    stages = Stages(COSTS)
    stages.run(2000, lambda now: 12.0 if now // 50 % 2 else 1.0)
    assert [target for _, _, target in stages.changes] == sorted(target for _, _, target in stages.changes)
    assert len(stages.changes) <= 4


def test_what_is_owed_is_caught_up_with() -> None:
    memory = StageMemory(cost=0.3)
    relaxed, _ = decide(load(made=4.0, busy=1.2), 4.0, memory, 0.0, RULES)
    late, _ = decide(load(made=4.0, busy=1.2, owed_s=40.0), 4.0, memory, 0.0, replace(RULES, growth=10))
    assert (relaxed, late) == (2, 4)


def test_before_any_cost_is_known_only_a_saturated_stage_grows() -> None:
    assert decide(load(), 50.0, StageMemory(), 0.0, RULES)[0] == 1
    assert decide(load(busy=0.9), 50.0, StageMemory(), 0.0, RULES)[0] == 2
    assert decide(load(busy=0.9), 0.0, StageMemory(), 0.0, RULES)[0] == 1


def test_growth_is_bounded_per_step_and_in_time() -> None:
    memory = StageMemory(cost=1.0)
    target, memory = decide(load(wanted=4, busy=1.0), 500.0, memory, 10.0, RULES)
    assert target == 8
    assert decide(load(wanted=8, busy=1.0), 500.0, memory, 10.0 + RULES.grow_every_s / 2, RULES)[0] == 8
    assert decide(load(wanted=8, busy=1.0), 500.0, memory, 10.0 + RULES.grow_every_s, RULES)[0] == 16


def test_streams_that_pile_up_behind_another_stage_are_no_reason_to_grow() -> None:
    """Its cost was measured with one stream at a time; with forty it would be another."""
    idle = load(busy=0.25, made=2.0)
    target, memory = decide(idle, 40.0, StageMemory(), 0.0, RULES)
    assert (target, memory.cost) == (1, 0.125)
    assert decide(replace(idle, busy=0.8), 40.0, memory, 1.0, RULES)[0] == 2


@given(
    st.builds(
        StageLoad,
        replicas=st.integers(0, 50),
        wanted=st.integers(0, 50),
        busy=st.floats(0, 50),
        made=st.floats(0, 1000),
        owed_s=st.floats(0, 1e4),
        least=st.integers(1, 5),
        most=st.integers(5, 60),
    ),
    st.floats(0, 1e4),
    st.lists(st.floats(0, 1000), max_size=20),
)
def test_bounds_hold_whatever_is_measured(seen: StageLoad, demand: float, times: list[float]) -> None:
    memory = StageMemory()
    for now in sorted(times):
        target, memory = decide(seen, demand, memory, now, RULES)
        assert seen.least <= target <= seen.most
        seen = replace(seen, wanted=target)


@pytest.mark.parametrize("wrong", [{"utilisation": 0.0}, {"growth": 0.5}, {"catch_up_s": 0.0}, {"shrink_after_s": -1}])
def test_rules_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ScalingRules(**wrong)
