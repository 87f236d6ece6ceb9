"""A listener with a player that starts with the first chunk: when sound came, and where it fell silent.

A player that runs dry waits, and goes on when more has come. The sum of these waits (`underrun_s`) equals the greatest
delay of any chunk behind its place in the playback, that is, the least head start with which nothing would have been
missed. So "gap-free at a tolerance of 100 ms" means: a player that begins 100 ms after the first audio never stops.
Knows no doors and no clock: it is told when what came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]

# -50 dB below full scale: what a listener in a quiet room takes for silence.
_AUDIBLE = 10 ** (-50 / 20)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One chunk: seconds after the intended start, and the seconds of audio it holds."""

    at_s: float
    audio_s: float


@dataclass(frozen=True, slots=True)
class Playback:
    """What a player made of chunks. `gaps_s`: its silences in order, where it had run dry."""

    gaps_s: tuple[float, ...] = ()

    @property
    def underrun_s(self) -> float:
        return sum(self.gaps_s)

    def continuous(self, tolerance_s: float) -> bool:
        """Whether a player that begins `tolerance_s` after the first audio never stops."""
        return self.underrun_s <= tolerance_s


def play(arrivals: tuple[Arrival, ...]) -> Playback:
    """Play chunks from the moment the first has come."""
    gaps: list[float] = []
    until: float | None = None
    for arrival in arrivals:
        if until is None or arrival.at_s > until:
            if until is not None:
                gaps.append(arrival.at_s - until)
            until = arrival.at_s
        until += arrival.audio_s
    return Playback(tuple(gaps))


class Listener:
    """Notes chunks as they come."""

    def __init__(self) -> None:
        self._arrivals: list[Arrival] = []
        self._audible: float | None = None
        self._audio_s = 0.0

    def heard(self, at_s: float, samples: Samples, sample_rate: int) -> None:
        """One chunk (N,), full scale 32767 or 1.0; an empty one is no sound."""
        if not len(samples):
            return
        if self._audible is None:
            level = _AUDIBLE * (32768 if samples.dtype == np.int16 else 1)
            loud = np.flatnonzero(np.abs(samples.astype(np.float32)) >= level)
            if len(loud):
                self._audible = self._audio_s + float(loud[0]) / sample_rate
        seconds = len(samples) / sample_rate
        self._arrivals.append(Arrival(round(at_s, 6), round(seconds, 6)))
        self._audio_s += seconds

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        return tuple(self._arrivals)

    @property
    def audio_s(self) -> float:
        return self._audio_s

    @property
    def leading_silence_s(self) -> float:
        """Silence before the first sound; all of it when there is none."""
        return self._audio_s if self._audible is None else self._audible
