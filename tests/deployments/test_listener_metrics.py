"""What the ingress counts of its listeners, on a clock of the test's, and that counting costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import pytest
from ray.util import metrics as ray_metrics

from deployments.messages import FirstAudio
from deployments.metrics import ListenerMetrics

Recorded = list[tuple[str, float, dict[str, str]]]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What is handed to Ray; the real metrics, read where they leave Python."""
    found: Recorded = []
    record = ray_metrics.Metric._record

    def note(metric: ray_metrics.Metric, value: float, tags: Mapping[str, str] | None = None) -> None:
        found.append((metric.info["name"].removeprefix("cosyvoice_"), value, dict(tags or {})))
        record(metric, value, tags)

    monkeypatch.setattr(ray_metrics.Metric, "_record", note)
    return found


class Clock:
    now = 10.0

    def __call__(self) -> float:
        return self.now


def values(recorded: Recorded, name: str) -> list[float]:
    return [value for found, value, _tags in recorded if found == name]


def play(clock: Clock, chunk: Callable[[float], None], *arrivals: tuple[float, float]) -> None:
    """(seconds since the chunk before, its audio)"""
    for wait_s, audio_s in arrivals:
        clock.now += wait_s
        chunk(audio_s)


def test_a_player_that_runs_dry_is_an_underrun_and_plays_on_later(recorded: Recorded) -> None:
    clock = Clock()
    stream = ListenerMetrics().stream("listener", clock)
    play(clock, stream.chunk, (0, 1.0), (0.5, 1.0), (2.0, 1.0), (0.5, 1.0))
    stream.close("ok")
    assert values(recorded, "chunk_gap_ms") == pytest.approx([500, 2000, 500])
    # After the second chunk 1.5 s were left, so the third came half a second late; half of it was left at the fourth.
    assert values(recorded, "run_ahead_s") == pytest.approx([0.5, 0.001, 0.5])
    assert values(recorded, "underruns") == [1]
    assert values(recorded, "underrun_seconds") == pytest.approx([0.5])
    assert (stream.underruns, stream.underrun_s) == (1, pytest.approx(0.5))
    assert sum(values(recorded, "audio_seconds")) == pytest.approx(4.0)


def test_silences_that_a_player_hides_are_none(recorded: Recorded) -> None:
    clock = Clock()
    stream = ListenerMetrics().stream("listener", clock)
    play(clock, stream.chunk, (0, 1.0), (1.05, 1.0), (1.05, 1.0))
    assert values(recorded, "underruns") == []
    assert stream.underrun_s == 0


def test_nobody_hears_a_file_run_dry(recorded: Recorded) -> None:
    clock = Clock()
    stream = ListenerMetrics().stream("file", clock)
    play(clock, stream.chunk, (0, 1.0), (9.0, 1.0))
    assert values(recorded, "underruns") == values(recorded, "chunk_gap_ms") == []
    assert sum(values(recorded, "audio_seconds")) == 2.0


def test_open_streams_ends_and_refusals(recorded: Recorded) -> None:
    metrics = ListenerMetrics()
    first, second = metrics.stream("listener"), metrics.stream("listener")
    first.close("refused", "overload")
    second.close("cancelled")
    metrics.refused("key")
    assert values(recorded, "open_streams") == [1, 2, 1, 0]
    ends = [tags["outcome"] for name, _value, tags in recorded if name == "requests"]
    assert ends == ["refused", "cancelled"]
    assert [tags["reason"] for name, _value, tags in recorded if name == "refusals"] == ["overload", "key"]


def test_a_first_audio_is_counted_with_its_parts(recorded: Recorded) -> None:
    ListenerMetrics().stream("growing").first_audio(FirstAudio("id", (("lm", 0.2), ("voice", 0.0), ("flow", 0.1))))
    assert ("first_audio_ms", pytest.approx(300), {"delivery": "growing"}) in recorded
    assert [tags["part"] for name, _value, tags in recorded if name == "first_audio_part_seconds"] == ["lm", "flow"]


def test_a_chunk_costs_a_small_part_of_the_time_it_plays() -> None:
    """A chunk plays for a fifth of a second at least; hundreds of listeners must be countable beside all else."""
    stream = ListenerMetrics().stream("listener")
    began = time.thread_time()
    for _ in range(1000):
        stream.chunk(0.2)
    assert (time.thread_time() - began) / 1000 < 0.2 / 200
