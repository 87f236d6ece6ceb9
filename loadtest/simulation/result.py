"""What a simulated day came to: one frozen record, with plan and costs, as JSON with a version of its form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtest.machine import Machine, Software, command, today
from loadtest.simulation.plan import Plan
from loadtest.simulation.record import SAMPLE_S, SPAN_S, Latency, NodeLoss
from loadtest.simulation.stage_costs import Costs
from loadtest.simulation.world import Progress, World

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole time from midnight on. Shares are of utterances asked for (rejected) or complete (dry, replayed).

    good: complete, first audio within the SLO and gap-free; goodput: their share of those complete or refused;
    gpu_hours: of devices held by replicas, starting and ending ones included.
    """

    asked: int
    rejected: int
    rejected_share: float
    finished: int
    goodput: float
    gpu_hours: float
    peak_devices: float
    audio_hours: float
    first_audio: Latency
    dry: int
    dry_share: float
    silence_s: float
    replayed: int
    peak_open: int


@dataclass(frozen=True, slots=True)
class StageDay:
    """One stage; running, wanted and busy share of the running ones a sample, made_again_s: for replays."""

    running: tuple[int, ...]
    wanted: tuple[int, ...]
    busy: tuple[float, ...]
    made_again_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """A simulated day. Samples are `sample_s` apart, the first at its end; latencies are of `span_s` each."""

    schema_version: int
    date: str
    command: str
    machine: Machine
    software: Software
    plan: Plan
    costs: Costs
    summary: Summary
    sample_s: int
    asked_per_s: tuple[float, ...]
    refused_per_s: tuple[float, ...]
    open: tuple[int, ...]
    waiting: tuple[int, ...]
    devices: tuple[float, ...]
    stages: dict[str, StageDay]
    span_s: int
    first_audio: tuple[Latency, ...]
    losses: tuple[NodeLoss, ...]

    @property
    def kept(self) -> bool:
        return self.summary.goodput >= self.plan.slo.goodput

    def write(self, path: Path) -> None:
        """As JSON in one line."""
        path.write_bytes(TypeAdapter(Result).dump_json(self) + b"\n")


def simulate(plan: Plan, costs: Costs, progress: Progress = lambda _now: None) -> Result:
    """Run the plan; the same plan, costs and seed give the same figures."""
    world = World(plan, costs)
    world.run(progress)
    seen, books = world.recorder, world.books
    summary = Summary(
        asked=seen.asked,
        rejected=seen.refused,
        rejected_share=seen.refused / max(seen.asked, 1),
        finished=seen.finished,
        goodput=seen.good / max(seen.finished + seen.refused, 1),
        gpu_hours=seen.device_s / 3600,
        peak_devices=seen.peak_devices,
        audio_hours=seen.audio_s / 3600,
        first_audio=seen.first.latency(),
        dry=seen.dry,
        dry_share=seen.dry / max(seen.finished, 1),
        silence_s=seen.silence_s,
        replayed=seen.replayed,
        peak_open=seen.peak_open,
    )
    return Result(
        schema_version=SCHEMA_VERSION,
        date=today(),
        command=command(),
        machine=Machine.here(),
        software=Software.here(),
        plan=plan,
        costs=costs,
        summary=summary,
        sample_s=SAMPLE_S,
        asked_per_s=tuple(seen.asked_per_s),
        refused_per_s=tuple(seen.refused_per_s),
        open=tuple(seen.open),
        waiting=tuple(seen.waiting),
        devices=tuple(seen.devices),
        stages={
            name: StageDay(tuple(one.running), tuple(one.wanted), tuple(one.busy), books.again_s[name])
            for name, one in seen.stages.items()
        },
        span_s=SPAN_S,
        first_audio=tuple(span.latency() for span in seen.spans),
        losses=tuple(seen.losses),
    )
