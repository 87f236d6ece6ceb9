"""`python -m tests.chaos`: listeners in a steady flow while replicas, engines and whole nodes are killed at random.

Stages run on a fake cluster (see `fake_cluster`), ingress and controller on the head, which is spared. One thing fails
at a time: the next is killed when the cluster is whole again. Every listener must hear the samples of the same call
unbroken, and nothing may be left in any stage afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from deployments.client import CosyVoiceClient
from tests.cluster_state import STAGES, application, engines_of, left_in, stage_infos, until
from tests.fake_cluster import FakeCluster, fake_cluster, origin, service_config
from tests.listeners import Heard, calls, choose, listen, references

NODE, RAYLET, FROZEN, ENGINE = "node", "raylet", "frozen node", "engine"
_WHOLE_S = 240


@dataclass(frozen=True, slots=True)
class Kill:
    """at_s: since the first listener; whole_s: until all replicas were there again."""

    kind: str
    at_s: float
    whole_s: float


@dataclass
class Report:
    """streams: all listeners; broken_streams: those that heard anything but the whole call; orphans: calls open in a
    stage after all had ended; leaks: what stages still held for calls. Silences in seconds, see `Heard`."""

    streams: int
    seed: int
    engine: str
    kills: list[Kill] = field(default_factory=list)
    broken_streams: int = 0
    orphans: int = 0
    leaks: int = 0
    left: dict[str, dict[str, int]] = field(default_factory=dict)
    seconds: float = 0.0
    hit: int = 0
    gap_s: dict[str, dict[str, float]] = field(default_factory=dict)
    first_audio_s: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, int]:
        return dict(Counter(kill.kind for kill in self.kills))

    @property
    def sound(self) -> bool:
        return bool(self.kills) and not (self.broken_streams or self.orphans or self.leaks)

    def record(self) -> dict[str, object]:
        return {
            **asdict(self),
            "kills": len(self.kills),
            "kills_by_kind": self.kinds,
            "log": [*map(asdict, self.kills)],
        }


class Killer:
    """Kills one thing after another until it is told to stop."""

    def __init__(self, cluster: FakeCluster, app: str, kinds: list[str], seed: int) -> None:
        self._cluster, self._app, self._kinds = cluster, app, kinds
        self._chance = Random(seed)
        self._round: list[str] = []
        self._lost: int | None = None
        self._silent: str | None = None
        self.began = time.monotonic()
        self.kills: list[Kill] = []
        self.times: list[tuple[float, float]] = []
        self.stopped = False

    async def run(self, at_most: int | None, pause_s: tuple[float, float]) -> None:
        """Raises TimeoutError when the cluster does not become whole again."""
        while not self.stopped and (at_most is None or len(self.kills) < at_most):
            await asyncio.sleep(self._chance.uniform(*pause_s))
            if self.stopped:
                return
            if not self._round:
                self._round = self._chance.sample(self._kinds, len(self._kinds))
            kind, began = self._round.pop(), time.monotonic()
            end = await asyncio.to_thread(self._kill, kind)
            if not await until(self._whole, _WHOLE_S):
                raise TimeoutError(f"not whole {_WHOLE_S} s after {kind} was killed")
            await asyncio.to_thread(end)
            whole = time.monotonic()
            self.kills.append(Kill(kind, began - self.began, whole - began))
            self.times.append((began, whole))
            print(f"{began - self.began:7.1f} s  {kind} killed, whole after {whole - began:.1f} s", flush=True)

    def _kill(self, kind: str) -> Callable[[], None]:
        """Returns what is to be done when the cluster is whole again."""
        replicas = application(self._app).replicas
        if kind in (NODE, RAYLET, FROZEN):
            number = self._chance.randrange(len(self._cluster.workers))
            self._silent = self._cluster.workers[number].node_id
            if kind == FROZEN:
                return self._cluster.freeze(number)
            (self._cluster.lose if kind == NODE else self._cluster.lose_raylet)(number)
            return lambda: None
        stage = "SpeechLM" if kind == ENGINE else kind
        process = self._chance.choice(sorted(one.process for one in replicas if one.deployment == stage))
        os.kill(engines_of(process)[0] if kind == ENGINE else process, signal.SIGKILL)
        # A replica without its engine lives on for a moment.
        self._lost = process
        return lambda: None

    def _whole(self) -> bool:
        found = application(self._app)
        return found.whole and not any(one.process == self._lost or one.node == self._silent for one in found.replicas)


async def chaos(cluster: FakeCluster, app: str, options: argparse.Namespace) -> Report:
    """All listeners, with kills meanwhile."""
    client, of = CosyVoiceClient(app), calls()
    expected = await references(client, of)
    engine = next(info.engine for info in await stage_infos(app) if info.stage == "SpeechLM")
    report = Report(options.streams, options.seed, engine)
    # A frozen node lasts as long as all others together, until timeouts end: only if asked for.
    kinds = options.kinds or [*STAGES, NODE, RAYLET, *([ENGINE] if engine == "vllm" else [])]
    killer = Killer(cluster, app, kinds, options.seed)
    killing = asyncio.create_task(killer.run(options.kills, (options.pause_s / 2, options.pause_s * 3 / 2)))
    numbers, heard = itertools.count(), list[Heard]()

    async def come_again() -> None:
        """One after another, as many as were asked for, and for as long as so many kills are not done."""
        while (number := next(numbers)) < options.streams or (options.kills is not None and not killing.done()):
            index = choose(of, options.seed, number)
            one = await listen(client, of[index])
            one.compare(expected[index])
            if one.problem:
                print(f"listener {number}, call {index}: {one.problem}", file=sys.stderr, flush=True)
            one.samples.clear()
            heard.append(one)

    began = time.monotonic()
    async with asyncio.TaskGroup() as listeners:
        for _ in range(options.together):
            listeners.create_task(come_again())
    killer.stopped = True
    await killing
    report.seconds = time.monotonic() - began
    report.streams = len(heard)
    report.kills = killer.kills
    report.problems = [one.problem for one in heard if one.problem]
    report.broken_streams = len(report.problems)
    note_gaps(report, heard, killer.times)
    left = await left_in(app, 10)
    report.orphans, report.leaks = sum(left.running.values()), sum(left.held.values())
    report.left = asdict(left)
    return report


def note_gaps(report: Report, heard: list[Heard], kills: list[tuple[float, float]]) -> None:
    """Silences of listeners who were there between a kill and the return of what was killed, and of the others."""
    hit = [any(one.began < whole and began < one.ended for began, whole in kills) for one in heard]
    report.hit = sum(hit)
    for name, wanted in (("after_kill", True), ("without", False)):
        chosen = [one for one, was_hit in zip(heard, hit, strict=True) if was_hit is wanted and not one.problem]
        report.gap_s[name] = percentiles([one.silence_s for one in chosen])
        report.first_audio_s[name] = percentiles([one.first_s for one in chosen])


def percentiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    found = np.percentile(values, [50, 95, 99, 100]).round(3).tolist()
    return dict(zip(("p50", "p95", "p99", "max"), found, strict=True))


def run(options: argparse.Namespace) -> Report:
    stage = {"ray_actor_options": {"num_cpus": 0.1, "num_gpus": 0.1}, "autoscaling_config": None}
    stage["num_replicas"] = options.replicas
    # Else replacements gather on the node that is left, and the next loss is that of a whole stage.
    stage["max_replicas_per_node"] = max(-(-options.replicas // options.workers), 1)
    # The head has no GPU, so that stages run on workers; ingress stays where the controller is.
    ingress = {"ray_actor_options": {"num_cpus": 0.1, "resources": {"node:__internal_head__": 0.01}}}
    config = service_config(
        {**dict.fromkeys(STAGES, stage), "Ingress": ingress},
        {"lm": {"engine": options.engine}, "flow": {"cache_bytes": 256 * 2**20}},
    )
    with fake_cluster(options.workers, config) as (cluster, service):
        return asyncio.run(chaos(cluster, service.app_name, options))


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 unless something was killed, and no stream broke, no work is orphaned and nothing leaked."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--streams", type=int, default=200, help="listeners in all, at least")
    parser.add_argument("--together", type=int, default=4, help="listeners at once")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when, and who says what")
    parser.add_argument("--kills", type=int, help="so many, with listeners until then; else as long as they last")
    parser.add_argument(
        "--kinds", nargs="*", help=f"what is killed: {', '.join([*STAGES, NODE, RAYLET, FROZEN, ENGINE])}"
    )
    parser.add_argument("--pause-s", type=float, default=4, help="mean time between being whole and the next kill")
    parser.add_argument("--engine", choices=("torch", "vllm"), default="torch", help="of the language model")
    parser.add_argument("--replicas", type=int, default=2, help="of each stage")
    parser.add_argument("--workers", type=int, default=2, help="nodes beside the head")
    parser.add_argument("--json", type=Path, help="write the report here")
    options = parser.parse_args(argv)
    report = run(options)
    print(f"{report.streams} streams in {report.seconds:.0f} s, {report.hit} amid a failure; kills: {report.kinds}")
    print(f"{report.broken_streams} broken, {report.orphans} orphans, {report.leaks} leaks")
    print(f"longest silence: {report.gap_s}; first audio: {report.first_audio_s}")
    if options.json:
        options.json.write_text(json.dumps(origin("chaos") | report.record(), indent=1) + "\n")
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
