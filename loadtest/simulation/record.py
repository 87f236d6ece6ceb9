"""What is noted while a simulation runs: books that must balance, and series over the day for its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from loadtest.simulation.plan import Plan
from loadtest.simulation.replicas import RUNNING
from loadtest.simulation.stage import Stage
from loadtest.simulation.stage_costs import FloatArray

SAMPLE_S = 60
SPAN_S = 600
"""Percentiles over the day are of so many seconds each."""
_SHORTEST_S, _RATIO, _BINS = 0.001, 1.01, 1_500
_QUANTILES = (0.5, 0.95, 0.99)


@dataclass(slots=True)
class Books:
    """Utterances and audio seconds of the whole run, warm-up included. again_s: made again for replays, by stage."""

    again_s: dict[str, float]
    admitted: int = 0
    finished: int = 0
    finished_s: float = 0.0

    @classmethod
    def empty(cls, stages: tuple[str, ...]) -> Books:
        return cls(dict.fromkeys(stages, 0.0))

    def again(self, seconds: FloatArray) -> None:
        """More audio seconds to make again, by stage."""
        for name, value in zip(self.again_s, seconds.tolist(), strict=True):
            self.again_s[name] += value


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of first audio, seconds; None of nothing."""

    p50: float | None
    p95: float | None
    p99: float | None


class Histogram:
    """Counts of seconds in bins that grow by a hundredth, so that a percentile is right to 1 %."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)

    def add(self, seconds: FloatArray) -> None:
        bins = np.log(np.maximum(seconds, _SHORTEST_S) / _SHORTEST_S) / math.log(_RATIO)
        self.counts += np.bincount(np.minimum(bins.astype(np.int64), _BINS - 1), minlength=_BINS)

    def latency(self) -> Latency:
        total = int(self.counts.sum())
        if not total:
            return Latency(None, None, None)
        bins = np.searchsorted(np.cumsum(self.counts), np.ceil(np.array(_QUANTILES) * total))
        # The middle of a bin stands for all in it.
        values = _SHORTEST_S * _RATIO ** (bins + 0.5)
        return Latency(*(float(value) for value in values))


@dataclass(slots=True)
class StageSeries:
    """One value a sample: replicas that run, that were asked for, and the share of the running ones' time at work."""

    running: list[int] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NodeLoss:
    """Nodes lost at a second, and the utterances that were replayed for it."""

    at_s: int
    nodes: int
    replayed: int


class Recorder:
    """Of the seconds from midnight on."""

    def __init__(self, plan: Plan, stages: tuple[str, ...]) -> None:
        self._slo = plan.slo
        spans = -(-plan.duration_s // SPAN_S)
        self.first = Histogram()
        self.spans = [Histogram() for _ in range(spans)]
        self.asked = self.refused = self.finished = self.good = self.dry = self.replayed = 0
        self.silence_s = self.audio_s = self.device_s = 0.0
        self.peak_devices = 0.0
        self.peak_open = 0
        self.at_s: list[int] = []
        self.asked_per_s: list[float] = []
        self.refused_per_s: list[float] = []
        self.open: list[int] = []
        self.waiting: list[int] = []
        self.devices: list[float] = []
        self.stages = {name: StageSeries() for name in stages}
        self.losses: list[NodeLoss] = []
        self._since = [0, 0]

    def second(
        self,
        now: int,
        asked: int,
        refused: int,
        open_streams: int,
        waiting: int,
        devices: float,
        stages: Mapping[str, Stage],
    ) -> None:
        """The end of a second."""
        self.asked += asked
        self.refused += refused
        self.device_s += devices
        self.peak_devices = max(self.peak_devices, devices)
        self.peak_open = max(self.peak_open, open_streams)
        self._since[0] += asked
        self._since[1] += refused
        if (now + 1) % SAMPLE_S:
            return
        self.at_s.append(now + 1)
        self.asked_per_s.append(self._since[0] / SAMPLE_S)
        self.refused_per_s.append(self._since[1] / SAMPLE_S)
        self._since = [0, 0]
        self.open.append(open_streams)
        self.waiting.append(waiting)
        self.devices.append(devices)
        for name, stage in stages.items():
            running = stage.replicas.count(RUNNING)
            self.stages[name].running.append(running)
            self.stages[name].wanted.append(stage.wanted)
            self.stages[name].busy.append(min(stage.busy / max(running, 1), 1.0))

    def heard(self, now: int, first_s: FloatArray) -> None:
        """Listeners who heard their first audio, so many seconds after they asked."""
        if now >= 0 and len(first_s):
            self.first.add(first_s)
            self.spans[now // SPAN_S].add(first_s)

    def done(self, now: int, audio_s: FloatArray, first_s: FloatArray, dry_s: FloatArray, replays: FloatArray) -> None:
        """Utterances that are complete, a value each."""
        if now < 0:
            return
        dry, late = dry_s > self._slo.gap_tolerance_s, first_s > self._slo.first_audio_s
        self.finished += len(first_s)
        self.dry += int(np.count_nonzero(dry))
        self.good += int(np.count_nonzero(~dry & ~late))
        self.replayed += int(np.count_nonzero(replays))
        self.silence_s += float(dry_s.sum())
        self.audio_s += float(audio_s.sum())

    def lost(self, now: int, nodes: int, replayed: int) -> None:
        self.losses.append(NodeLoss(now, nodes, replayed))
