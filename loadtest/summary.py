"""What one level of load says in sum. Knows records; draws no conclusions beyond the scenario's own SLO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.record import Record, Verdict
from loadtest.scenario import Slo
from loadtest.statistics import Interval, Percentiles, percentiles, share


@dataclass(frozen=True, slots=True)
class StageShare:
    """Mean seconds that a part of the service took of the first audio: over all requests, and over the slowest
    tenth of them."""

    name: str
    mean_s: float
    slowest_s: float


@dataclass(frozen=True, slots=True)
class Summary:
    """Of one level, warm-up excluded.

    first_audio, total: seconds from the intended start. total_rtf, stream_rtf: see `Record`; their inverse is how many
    times faster than real time. chunk_gap: between any two chunks. underrun: seconds of silence per request. audio
    per_s: seconds of audio that arrived per second of the measured time, of all listeners. running: requests at once,
    on average over the measured time. goodput: share of requests with first audio within the SLO and gap-free; those
    who left before that could be known are in neither.
    """

    requests: int
    verdicts: dict[str, int]
    errors: dict[str, int]
    goodput: Interval | None
    first_audio: Percentiles | None
    total: Percentiles | None
    total_rtf: Percentiles | None
    stream_rtf: Percentiles | None
    chunk_gap: Percentiles | None
    underrun: Percentiles | None
    leading_silence: Percentiles | None
    continuous: Interval | None
    audio_per_s: float
    audio_per_s_per_gpu: float | None
    running: float
    asked_per_s: float
    stages: tuple[StageShare, ...]


def summarise(records: Sequence[Record], from_s: float, until_s: float, slo: Slo, gpus: int | None = None) -> Summary:
    """records of one level in order of intended start; the measured time is `from_s` to `until_s`."""
    measured = [record for record in records if not record.warm_up]
    heard = [record for record in measured if record.arrivals]
    whole = [record for record in heard if record.complete]
    verdicts = Counter(record.verdict(slo) for record in measured)
    decided = len(measured) - verdicts[Verdict.LEFT]
    # Listeners who heard some of it and left can have been let down before; they count as far as they listened.
    gap_free = [record.playback.continuous(slo.gap_tolerance_s) for record in heard]
    audio_per_s = _audio_between(records, from_s, until_s) / (until_s - from_s)
    return Summary(
        requests=len(measured),
        verdicts={verdict.value: verdicts[verdict] for verdict in Verdict},
        errors=dict(Counter(record.failure.kind.value for record in measured if record.failure)),
        goodput=share(verdicts[Verdict.GOOD], decided),
        first_audio=percentiles([record.arrivals[0].at_s for record in heard]),
        total=percentiles([record.ended_s for record in whole]),
        total_rtf=percentiles([value for record in whole if (value := record.total_rtf) is not None]),
        stream_rtf=percentiles([value for record in whole if (value := record.stream_rtf) is not None]),
        chunk_gap=percentiles([gap for record in heard for gap in record.chunk_gaps_s]),
        underrun=percentiles([record.playback.underrun_s for record in heard]),
        leading_silence=percentiles([record.leading_silence_s for record in heard]),
        continuous=share(sum(gap_free), len(gap_free)),
        audio_per_s=audio_per_s,
        audio_per_s_per_gpu=audio_per_s / gpus if gpus else None,
        running=sum(_overlap(record, from_s, until_s) for record in records) / (until_s - from_s),
        asked_per_s=len(measured) / (until_s - from_s),
        stages=stage_shares(heard),
    )


def stage_shares(heard: Sequence[Record]) -> tuple[StageShare, ...]:
    """Where the time to first audio went, by the service's account; `outside` is what it does not see: network,
    proxy, and the client. Empty when no answer had an account."""
    told = [record for record in heard if record.stages]
    if not told:
        return ()
    by_latency = sorted(told, key=lambda record: record.arrivals[0].at_s)
    slowest = by_latency[-max(len(told) // 10, 1) :]
    names = list(dict.fromkeys(stage.name for record in told for stage in record.stages))
    return tuple(
        StageShare(
            name,
            float(np.mean([_seconds(record, name) for record in told])),
            float(np.mean([_seconds(record, name) for record in slowest])),
        )
        for name in [*names, OUTSIDE]
    )


OUTSIDE = "outside"


def _seconds(record: Record, name: str) -> float:
    if name == OUTSIDE:
        return record.arrivals[0].at_s - sum(stage.seconds for stage in record.stages)
    return sum(stage.seconds for stage in record.stages if stage.name == name)


def _audio_between(records: Sequence[Record], from_s: float, until_s: float) -> float:
    return sum(
        arrival.audio_s
        for record in records
        for arrival in record.arrivals
        if from_s <= record.intended_s + arrival.at_s < until_s
    )


def _overlap(record: Record, from_s: float, until_s: float) -> float:
    return max(min(record.intended_s + record.ended_s, until_s) - max(record.intended_s, from_s), 0.0)
