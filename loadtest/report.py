"""A report: what was run where, every request, and what it says in sum. One JSON file with a version of its form."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loadtest.errors import ScenarioError
from loadtest.machine import Machine, Software
from loadtest.pulse import ClientLoad
from loadtest.record import Record
from loadtest.scenario import Scenario
from loadtest.summary import Summary

SCHEMA_VERSION = 1
# Lateness of the client above this share of the SLO's first audio spoils a measurement.
_TOLERABLE_LAG = 0.05


@dataclass(frozen=True, slots=True)
class Level:
    """One level of load. `load` is its size: requests per second, users, or the speed of a trace."""

    label: str
    kind: str
    load: float
    measured_from_s: float
    measured_until_s: float
    client: ClientLoad
    summary: Summary
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What was measured: address, what `/health` said of model, stages and devices, and the Serve config when the
    run started the service itself. same_machine: client and service shared this computer."""

    url: str
    same_machine: bool
    health: dict[str, Any]
    config: str | None = None
    gpus: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A complete load test."""

    schema_version: int
    date: str
    command: str
    machine: Machine
    software: Software
    service: ServiceFacts
    scenario: Scenario
    levels: tuple[Level, ...]

    @property
    def tolerable_lag_s(self) -> float:
        return _TOLERABLE_LAG * self.scenario.slo.first_audio_s

    @property
    def missed(self) -> tuple[str, ...]:
        """Labels of levels whose goodput is below the SLO's, or at which nothing could be measured."""
        goodputs = {level.label: level.summary.goodput for level in self.levels}
        wanted = self.scenario.slo.goodput
        return tuple(label for label, goodput in goodputs.items() if goodput is None or goodput.value < wanted)

    @property
    def bottlenecks(self) -> tuple[str, ...]:
        """Levels at which the client itself was too slow, and how."""
        found = ((level.label, level.client.bottleneck(self.tolerable_lag_s)) for level in self.levels)
        return tuple(f"{label}: {problem}" for label, problem in found if problem)

    def write(self, path: Path) -> None:
        """As JSON in one line."""
        path.write_bytes(_FORM.dump_json(self, indent=None) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Raises ScenarioError for what is no report of this version."""
        try:
            report = _FORM.validate_json(path.read_bytes())
        except OSError as error:
            raise ScenarioError(f"{path}: cannot read the report ({error.strerror})") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ScenarioError(f"{path}: no report of version {SCHEMA_VERSION} ({where}: {first['msg']})") from None
        if report.schema_version != SCHEMA_VERSION:
            problem = f"a report of version {report.schema_version}; this program reads {SCHEMA_VERSION}"
            raise ScenarioError(f"{path}: {problem}")
        return report


_FORM = TypeAdapter(Report)
