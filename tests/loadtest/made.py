"""Records and reports made by hand, whose every figure is known."""

from __future__ import annotations

from itertools import accumulate

from loadtest.listener import Arrival
from loadtest.machine import Machine, Software
from loadtest.pulse import ClientLoad
from loadtest.record import ErrorKind, Failure, Record, StageTime
from loadtest.report import SCHEMA_VERSION, Level, Report, ServiceFacts
from loadtest.scenario import Scenario, Slo
from loadtest.summary import summarise

IDLE = ClientLoad(lag_p50_s=0.0001, lag_p99_s=0.001, lag_max_s=0.002, cpu=0.1)


def record(
    first_s: float | None = 0.3,
    *,
    intended_s: float = 10.0,
    pauses_s: tuple[float, ...] = (0.1,),
    chunk_s: float = 0.5,
    ended_s: float | None = None,
    left: bool = False,
    error: ErrorKind | None = None,
    warm_up: bool = False,
    stages: tuple[StageTime, ...] = (),
    number: int = 0,
) -> Record:
    """First audio after `first_s`, then a chunk after each pause; None: none came at all."""
    times = [] if first_s is None else list(accumulate((first_s, *pauses_s)))
    arrivals = tuple(Arrival(time, chunk_s) for time in times)
    return Record(
        number=number,
        door="http-wav",
        language="en",
        length="sentence",
        characters=40,
        voice_kind="known",
        warm_up=warm_up,
        request_id=f"made-{number}",
        intended_s=intended_s,
        sent_s=0.0,
        ended_s=ended_s if ended_s is not None else (times[-1] if times else 1.0),
        arrivals=arrivals,
        left=left,
        failure=Failure(error, "as made") if error else None,
        stages=stages,
    )


def level(label: str, records: list[Record], load: float = 1.0, client: ClientLoad = IDLE) -> Level:
    ordered = tuple(sorted(records, key=lambda one: one.intended_s))
    return Level(label, "poisson", load, 5.0, 25.0, client, summarise(ordered, 5.0, 25.0, Slo()), ordered)


def report(*levels: Level) -> Report:
    scenario = Scenario.model_validate({"name": "made", "load": {"kind": "poisson", "rates": [1.0]}})
    return Report(
        SCHEMA_VERSION,
        "2026-11-25T00:00:00Z",
        "python -m loadtest run",
        Machine("a processor", 2, 8.0, "Linux 6", (), None, 0.5),
        Software("3.11.0", {"httpx": "0.28"}, "abc"),
        ServiceFacts("http://127.0.0.1:8000", True, {"model": "cosyvoice2"}),
        scenario,
        levels,
    )
