"""What became of one request, in numbers that can be checked again later: all arrivals are kept.

Times are the client's alone. Latencies count from the *intended* start: a client that is late itself, or a service that
makes it late, does not make answers look faster ("coordinated omission").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from loadtest.listener import Arrival, Playback, play
from loadtest.scenario import Slo


class ErrorKind(StrEnum):
    """How a request failed."""

    REFUSED = "refused"
    """The service found the request wrong (4xx)."""
    OVERLOADED = "overloaded"
    """The service takes no more now (429, 503)."""
    FAILED = "failed"
    """The service failed inside (other 5xx, or an exception of a handle)."""
    TIMEOUT = "timeout"
    """Not done within the scenario's `timeout_s`."""
    CONNECTION = "connection"
    """No connection, or it broke before an answer began."""
    CUT = "cut"
    """The answer began and broke off."""
    SHORT = "short"
    """It ended properly with fewer bytes than it had declared, or with none at all."""
    MALFORMED = "malformed"
    """What came is not the audio that was asked for."""


@dataclass(frozen=True, slots=True)
class Failure:
    kind: ErrorKind
    detail: str


class Verdict(StrEnum):
    """Whether the listener was served well; `left` when they went before it could be known."""

    GOOD = "good"
    LATE = "late"
    GAPS = "gaps"
    FAILED = "failed"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class StageTime:
    """Seconds of the first audio that passed in one part of the service, as the service says."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Record:
    """One request. All times in seconds; `intended_s` from the start of its level, the others from `intended_s`.

    sent_s: how late the client itself was. ended_s: when the answer was complete, broke off, or the listener left.
    declared_bytes, received_bytes: of the body, where the protocol declares a length. left: the listener hung up as
    planned. stages: the service's own account of the time to the first audio, in order.
    """

    number: int
    door: str
    language: str
    length: str
    characters: int
    voice_kind: str
    warm_up: bool
    request_id: str
    intended_s: float
    sent_s: float
    ended_s: float
    arrivals: tuple[Arrival, ...] = ()
    leading_silence_s: float = 0.0
    received_bytes: int = 0
    declared_bytes: int | None = None
    left: bool = False
    failure: Failure | None = None
    stages: tuple[StageTime, ...] = ()

    @property
    def first_audio_s(self) -> float | None:
        """From the intended start to the first chunk that held samples."""
        return self.arrivals[0].at_s if self.arrivals else None

    @property
    def complete(self) -> bool:
        return self.failure is None and not self.left

    @cached_property
    def audio_s(self) -> float:
        return sum(arrival.audio_s for arrival in self.arrivals)

    @cached_property
    def playback(self) -> Playback:
        return play(self.arrivals)

    @property
    def chunk_gaps_s(self) -> tuple[float, ...]:
        """Times between chunks as they came, whether or not the player ran dry."""
        times = [arrival.at_s for arrival in self.arrivals]
        return tuple(after - before for before, after in pairwise(times))

    @property
    def total_rtf(self) -> float | None:
        """Real-time factor of the whole: time from the intended start to the end, per second of audio."""
        return self.ended_s / self.audio_s if self.complete and self.audio_s else None

    @property
    def stream_rtf(self) -> float | None:
        """Real-time factor of the stream: time after the first chunk, per second of audio after it. Below 1 the
        service gains on the listener. None for an answer in one chunk."""
        if not self.complete or len(self.arrivals) < 2:
            return None
        return (self.arrivals[-1].at_s - self.arrivals[0].at_s) / (self.audio_s - self.arrivals[0].audio_s)

    def verdict(self, slo: Slo) -> Verdict:
        if self.failure is not None:
            return Verdict.FAILED
        first = self.first_audio_s
        if first is None:
            return Verdict.LATE if self.ended_s > slo.first_audio_s else Verdict.LEFT
        if first > slo.first_audio_s:
            return Verdict.LATE
        return Verdict.GOOD if self.playback.continuous(slo.gap_tolerance_s) else Verdict.GAPS
