"""A whole load test against one running service: finds out what it is, runs the scenario's levels, makes the report."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from loadtest import arrivals
from loadtest.arrivals import Offsets
from loadtest.doors.connection import connections
from loadtest.doors.door import Door
from loadtest.doors.registry import Service, check_names, open_doors
from loadtest.errors import UnreachableError
from loadtest.machine import Machine, Software, command, today
from loadtest.prompt_audio import PromptAudio
from loadtest.report import SCHEMA_VERSION, Level, Report, ServiceFacts
from loadtest.request import Draw
from loadtest.runner import LevelRunner, Progress
from loadtest.scenario import BurstLoad, ClosedLoad, PoissonLoad, Scenario
from loadtest.summary import summarise
from loadtest.texts import SHIPPED, Texts

_ASK_S = 30.0
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Requests of one level never have the numbers of another, so that no seed is used twice.
_NUMBERS_PER_LEVEL = 1_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """The service under test. gpus: it computes on, for figures per GPU; None takes this machine's when the service
    runs here. config: the Serve config it was started with, where that is known."""

    url: str
    app_name: str = "cosyvoice"
    prompt: PromptAudio | None = None
    gpus: int | None = None
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class PlannedLevel:
    """A size of load. offsets: of an open loop; None is a closed one."""

    label: str
    kind: str
    load: float
    offsets: Offsets | None


TellLevel = Callable[[PlannedLevel], Progress]


def planned_levels(scenario: Scenario) -> Iterator[PlannedLevel]:
    """The levels of a scenario in order. Raises ScenarioError for a trace that cannot be read."""
    load, whole_s = scenario.load, scenario.warm_up_s + scenario.duration_s
    if isinstance(load, ClosedLoad):
        for users in load.users:
            yield PlannedLevel(f"{users} user{'s' * (users > 1)}", load.kind, users, None)
    elif isinstance(load, PoissonLoad):
        for rate in load.rates:
            yield PlannedLevel(f"{rate:g}/s", load.kind, rate, arrivals.poisson(rate, whole_s, scenario.seed))
    elif isinstance(load, BurstLoad):
        for rate in load.rates:
            offsets = arrivals.bursts(rate, load.size, load.spread_s, whole_s, scenario.seed)
            yield PlannedLevel(f"{rate:g}/s by {load.size}", load.kind, rate, offsets)
    else:
        for speed in load.speeds:
            offsets = arrivals.trace(load.file, speed)
            yield PlannedLevel(f"trace x{speed:g}", load.kind, speed, offsets)


class LoadTest:
    """One scenario on one service; made by `load_test`."""

    def __init__(
        self, scenario: Scenario, doors: dict[str, Door], voices: tuple[str, ...], facts: ServiceFacts
    ) -> None:
        self.facts = facts
        self._scenario = scenario
        self._doors = doors
        self._draw = Draw(
            scenario.mix,
            Texts.from_directory(scenario.texts or SHIPPED),
            voices,
            scenario.seed,
            scenario.writing,
        )

    async def level(self, planned: PlannedLevel, number: int, progress: Progress) -> Level:
        """Run one level; `number` tells its requests from those of other levels."""
        scenario = self._scenario
        runner = LevelRunner(
            self._doors,
            self._draw,
            warm_up_s=scenario.warm_up_s,
            duration_s=scenario.duration_s,
            timeout_s=scenario.timeout_s,
            first_number=number * _NUMBERS_PER_LEVEL,
            progress=progress,
        )
        if planned.offsets is None:
            assert isinstance(scenario.load, ClosedLoad)
            run = await runner.closed_loop(int(planned.load), scenario.load.think_s)
        else:
            run = await runner.open_loop(planned.offsets)
        from_s, until_s = run.measured_from_s, run.measured_until_s
        summary = summarise(run.records, from_s, until_s, scenario.slo, self.facts.gpus)
        return Level(planned.label, planned.kind, planned.load, from_s, until_s, run.client, summary, run.records)

    async def run(self, tell: TellLevel) -> Report:
        """All levels, one after another."""
        machine = Machine.here()
        levels = [
            await self.level(planned, number, tell(planned))
            for number, planned in enumerate(planned_levels(self._scenario))
        ]
        return self.report(tuple(levels), machine)

    def report(self, levels: tuple[Level, ...], machine: Machine) -> Report:
        return Report(SCHEMA_VERSION, today(), command(), machine, Software.here(), self.facts, self._scenario, levels)


@asynccontextmanager
async def load_test(scenario: Scenario, target: Target) -> AsyncIterator[LoadTest]:
    """Raises UnreachableError when the service does not answer, ScenarioError when it lacks what is asked for."""
    doors = [name for name, share in scenario.mix.doors.items() if share > 0]
    check_names(doors)
    async with connections(target.url) as web:
        health = await _json(web, target.url, "/health?stages=true")
        voices = await _json(web, target.url, "/v1/audio/voices")
        names = tuple(str(voice["name"]) for voice in voices.get("voices", []))
        opened = await open_doors(doors, Service(web, target.app_name, target.prompt))
        try:
            yield LoadTest(scenario, opened, names, _facts(target, health))
        finally:
            for door in opened.values():
                await door.close()


def _facts(target: Target, health: dict[str, Any]) -> ServiceFacts:
    same_machine = urlsplit(target.url).hostname in _LOOPBACK
    gpus = target.gpus if target.gpus is not None else len(Machine.here().gpus) if same_machine else None
    config = None
    if target.config is not None:
        config = f"{target.config.name}, sha256 {hashlib.sha256(target.config.read_bytes()).hexdigest()[:12]}"
    return ServiceFacts(target.url, same_machine, health, config, gpus or None)


async def _json(web: httpx.AsyncClient, url: str, path: str) -> dict[str, Any]:
    try:
        response = await web.get(path, timeout=_ASK_S)
        response.raise_for_status()
        found: dict[str, Any] = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise UnreachableError(
            f"{url}{path}: no answer of a speech service ({type(error).__name__}: {error})"
        ) from None
    return found
