"""`python -m tests.autoscale`: a load step on a cluster of several nodes, and which stages grow and shrink with it.

Stages run on a fake cluster (see `fake_cluster`) and scale by `deployments.scaling_policy`. The flow decoder has no
memory for caches and computes all earlier frames again, which makes it the bottleneck by far, at a load that the few
cores of one machine can carry.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ray import serve
from ray.serve.schema import ReplicaState

from deployments.client import CosyVoiceClient
from deployments.scaling_policy import STAGES
from loadtest.arrivals import poisson
from tests.fake_cluster import fake_cluster, origin, service_config

BOTTLENECK = "FlowDecoder"
TEXT = "The train leaves at nine in the morning."
RULES = {"utilisation": 0.5, "shrink_after_s": 15.0}
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """Running replicas of each stage, `at_s` after the load began."""

    at_s: float
    running: dict[str, int]


@dataclass
class Report:
    """streams: all that were opened; cut: those that ended early or with an error; cost: what one replica of each stage
    measured during the load, replica-seconds per second of audio."""

    rate: float
    streams: int = 0
    cut: int = 0
    load_s: float = 0.0
    looks: list[Look] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)

    @property
    def most(self) -> dict[str, int]:
        return {stage: max(look.running[stage] for look in self.looks) for stage in STAGES}

    @property
    def grew(self) -> list[str]:
        return [stage for stage in STAGES if self.most[stage] > self.looks[0].running[stage]]

    @property
    def at_end(self) -> dict[str, int]:
        return self.looks[-1].running

    def record(self) -> dict[str, object]:
        return {**asdict(self), "most": self.most, "grew": self.grew, "at_end": self.at_end}


async def measure(app: str, rate: float, load_s: float, settle_s: float) -> Report:
    """Nobody, then `rate` new listeners a second for `load_s`, then nobody until all is as before or `settle_s` is
    over."""
    client, report = CosyVoiceClient(app), Report(rate)
    began = time.monotonic()

    async def look() -> Look:
        found = Look(time.monotonic() - began, await asyncio.to_thread(replicas, app))
        report.looks.append(found)
        return found

    async def listen(number: int) -> None:
        report.streams += 1
        try:
            async with client.speak(TEXT, voice="demo_male", seed=number) as stream:
                samples = sum([len(chunk) async for chunk in stream])
            report.cut += samples < 24000
        except Exception as error:  # noqa: BLE001 - whatever it is, a listener was cut off
            print(f"listener {number}: {error!r}", file=sys.stderr)
            report.cut += 1

    async def arrive() -> None:
        async with asyncio.TaskGroup() as listeners:
            for number, offset in enumerate(poisson(rate, load_s, seed=0)):
                await asyncio.sleep(max(0.0, began + offset - time.monotonic()))
                listeners.create_task(listen(number))

    first = await look()
    arriving = asyncio.create_task(arrive())
    while not arriving.done():
        await asyncio.sleep(_LOOK_S)
        if (await look()).at_s < load_s:
            for stage in STAGES:
                stats = await serve.get_deployment_handle(stage, app).record_autoscaling_stats.remote()
                report.cost[stage] = stats["rtf"] or report.cost.get(stage, 0.0)
    await arriving
    report.load_s = time.monotonic() - began
    for _ in range(int(settle_s / _LOOK_S)):
        if (await look()).running == first.running:
            break
        await asyncio.sleep(_LOOK_S)
    return report


def replicas(app: str) -> dict[str, int]:
    found = serve.status().applications[app].deployments
    return {stage: found[stage].replica_states.get(ReplicaState.RUNNING.value, 0) for stage in STAGES}


def run(rate: float, load_s: float, settle_s: float, workers: int) -> Report:
    scaled = {
        "min_replicas": 1,
        "max_replicas": 4,
        "look_back_period_s": 11,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
    }
    stage = {"ray_actor_options": {"num_cpus": 0.2, "num_gpus": 0.25}, "autoscaling_config": scaled}
    config = service_config(
        dict.fromkeys(STAGES, stage),
        {"lm": {"engine": "torch"}, "flow": {"cache_bytes": 0}},
        autoscaling_policy={
            "policy_function": "deployments.scaling_policy:ScaleByWork",
            "policy_kwargs": RULES,
        },
    )
    with fake_cluster(workers, config) as (_cluster, service):
        return asyncio.run(measure(service.app_name, rate, load_s, settle_s))


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 unless the bottleneck alone grew, all is as before in the end, and no stream was cut."""
    parser = argparse.ArgumentParser(prog="python -m tests.autoscale", description=__doc__)
    parser.add_argument("--rate", type=float, default=0.4, help="new listeners a second during the load")
    parser.add_argument("--load-s", type=float, default=60, help="how long the load lasts")
    parser.add_argument("--settle-s", type=float, default=180, help="longest wait for the minimum afterwards")
    parser.add_argument("--workers", type=int, default=3, help="nodes beside the head, one GPU on paper each")
    parser.add_argument("--json", type=Path, help="write the report here")
    options = parser.parse_args(argv)
    report = run(options.rate, options.load_s, options.settle_s, options.workers)
    last: dict[str, int] = {}
    for look in report.looks:
        if look.running != last:
            print(f"{look.at_s:7.1f} s  " + "  ".join(f"{stage} {count}" for stage, count in look.running.items()))
            last = look.running
    print("replica-seconds per second of audio: " + "  ".join(f"{one} {cost:.3f}" for one, cost in report.cost.items()))
    print(f"{report.streams} streams in {report.load_s:.0f} s, {report.cut} cut")
    if options.json:
        options.json.write_text(json.dumps(origin("autoscale") | report.record(), indent=1) + "\n")
    kept = report.grew == [BOTTLENECK] and report.at_end == report.looks[0].running and not report.cut
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
