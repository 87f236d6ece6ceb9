"""`python -m tests.overload`: more listeners than the machine can serve, with admission and, for comparison, without.

An open loop of listeners at the same moments for both. Shown: who is let in hears it without gaps, who is not knows at
once, and nothing else goes wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deployments.local import read_config
from loadtest.own_service import ROOT, own_service
from loadtest.record import ErrorKind, Record
from loadtest.scenario import Mix, PoissonLoad, Scenario
from loadtest.session import Target, load_test
from tests.fake_cluster import CONFIG, origin

PATIENCE_S = 4.0
"""Longest first audio that admission lets anybody wait for."""

GAP_TOLERANCE_S = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of all listeners of one run, warm-up left out.

    gap_free: share of those served whose player never ran dry; underrun_s: mean silence of those served; first_audio_s,
    refused_after_s: median and 95th percentile, None where there was none; failed: neither served nor refused politely.
    """

    asked: int
    served: int
    refused: int
    failed: int
    gap_free: float
    underrun_s: float
    first_audio_s: tuple[float, float] | None
    refused_after_s: tuple[float, float] | None
    audio_per_s: float


def outcome(records: Iterable[Record], seconds: float) -> Outcome:
    measured = [record for record in records if not record.warm_up]
    served = [record for record in measured if record.complete]
    refused = [record for record in measured if record.failure and record.failure.kind is ErrorKind.OVERLOADED]
    playbacks = [record.playback for record in served]
    return Outcome(
        asked=len(measured),
        served=len(served),
        refused=len(refused),
        failed=len(measured) - len(served) - len(refused),
        gap_free=float(np.mean([one.continuous(GAP_TOLERANCE_S) for one in playbacks])) if served else 0.0,
        underrun_s=float(np.mean([one.underrun_s for one in playbacks])) if served else 0.0,
        first_audio_s=_middle_and_end([record.arrivals[0].at_s for record in served]),
        refused_after_s=_middle_and_end([record.ended_s for record in refused]),
        audio_per_s=sum(record.audio_s for record in served) / seconds,
    )


def _middle_and_end(values: list[float]) -> tuple[float, float] | None:
    return (float(np.quantile(values, 0.5)), float(np.quantile(values, 0.95))) if values else None


async def measure(url: str, rate: float, seconds: float) -> Outcome:
    """`rate` new listeners a second of sentences; the first ten seconds are not counted."""
    scenario = Scenario(
        name="overload",
        load=PoissonLoad(kind="poisson", rates=(rate,)),
        mix=Mix(names=("demo_male", "demo_female")),
        warm_up_s=10.0,
        duration_s=seconds,
        timeout_s=300.0,
    )
    async with load_test(scenario, Target(url)) as test:
        report = await test.run(lambda _planned: lambda _seconds, _running, _done: None)
    return outcome(report.levels[0].records, seconds)


@contextmanager
def service_with(admission: dict[str, Any]) -> Iterator[str]:
    """URL of a service of its own with these settings of admission."""
    config = copy.deepcopy(read_config(CONFIG))
    args = config["applications"][0]["args"]
    # Written elsewhere than the config that it is made of.
    args |= {"model": str(ROOT / args["model"]), "admission": admission}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overload.yaml"
        path.write_text(yaml.safe_dump(config))
        with own_service(path) as url:
            yield url


def run(rate: float, seconds: float, admission: dict[str, Any]) -> Outcome:
    with service_with(admission) as url:
        return asyncio.run(measure(url, rate, seconds))


def main(argv: list[str] | None = None) -> int:
    """Exit code 1 when anything but a refusal went wrong, or who was let in heard gaps no more rarely than without."""
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description=__doc__)
    parser.add_argument("--rate", type=float, default=4.0, help="new listeners a second")
    parser.add_argument("--seconds", type=float, default=60, help="measured time of each run")
    parser.add_argument("--json", type=Path, help="write the report here")
    options = parser.parse_args(argv)
    found = {
        "with admission": run(options.rate, options.seconds, {"max_first_audio_s": PATIENCE_S}),
        "without": run(options.rate, options.seconds, {"enabled": False}),
    }
    for name, one in found.items():
        print(
            f"{name}: {one.asked} asked, {one.served} served, {one.refused} refused, {one.failed} failed; gap-free "
            f"{one.gap_free:.1%}, silence {one.underrun_s:.2f} s; first audio p50, p95 {_seconds(one.first_audio_s)}, "
            f"refused after {_seconds(one.refused_after_s)}; {one.audio_per_s:.2f} s of audio per second"
        )
    if options.json:
        record = origin("overload") | {name: asdict(one) for name, one in found.items()}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    guarded, open_to_all = found["with admission"], found["without"]
    kept = not guarded.failed and guarded.refused > 0 and guarded.gap_free > open_to_all.gap_free
    return 0 if kept else 1


def _seconds(values: tuple[float, float] | None) -> str:
    return "none" if values is None else f"{values[0]:.3f}, {values[1]:.3f} s"


if __name__ == "__main__":
    sys.exit(main())
