"""Which audio is accepted. Knows no container and no codec.

Source: docs/model.md, "Prompt features".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """Bounds on uploaded audio; they also bound the memory and time that decoding may cost.

    Durations in seconds, rates in Hz. `silence_rms` is the root mean square (full scale = 1) that at least one
    stretch of 10 ms must reach; `max_peak` rejects float files written in integer scale.
    """

    min_seconds: float = 0.5
    max_seconds: float = 30.0
    min_rate: int = 16000
    max_rate: int = 192000
    max_bytes: int = 64 << 20
    silence_rms: float = 1e-3
    max_peak: float = 8.0

    def __post_init__(self) -> None:
        if not 0.0 < self.min_seconds <= self.max_seconds:
            raise ValueError(f"need 0 < min_seconds <= max_seconds, got {self.min_seconds}, {self.max_seconds}")
        if not 0 < self.min_rate <= self.max_rate:
            raise ValueError(f"need 0 < min_rate <= max_rate, got {self.min_rate}, {self.max_rate}")
        if self.max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, got {self.max_bytes}")

    @property
    def allowed_duration(self) -> str:
        return f"{self.min_seconds:g} to {self.max_seconds:g} s"

    @property
    def allowed_rate(self) -> str:
        return f"{self.min_rate} to {self.max_rate} Hz"
