"""What a request may say of sampling, and within which limits. Knows no engine: all of them take what comes out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.errors import InputError

MIN_TOP_P = 0.001
MAX_TOP_K = 6561
MAX_WINDOW = 64
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """Settings of one request over those of the checkpoint; None leaves the checkpoint's.

    ras False turns the treatment of repetitions off and leaves nucleus sampling. Raises InputError that names the
    field and its limits.
    """

    ras: bool = True
    top_p: float | None = None
    top_k: int | None = None
    window: int | None = None
    tau: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        _check("top_p", self.top_p, MIN_TOP_P, 1.0)
        _check("top_k", self.top_k, 1, MAX_TOP_K)
        _check("window", self.window, 0, MAX_WINDOW)
        _check("tau", self.tau, 0.0, 1.0)
        _check("temperature", self.temperature, MIN_TEMPERATURE, MAX_TEMPERATURE)

    def over(self, own: SamplingConfig) -> SamplingConfig:
        """The checkpoint's settings with what the request changes."""
        given = {
            name: value
            for name in ("top_p", "top_k", "window", "tau", "temperature")
            if (value := getattr(self, name)) is not None
        }
        return replace(own, **given) if self.ras else replace(own, **{**given, "window": 0})


def _check(field: str, value: float | None, least: float, most: float) -> None:
    if value is None:
        return
    whole = isinstance(least, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        kind = "whole number" if whole else "number"
        raise InputError(f"sampling.{field}", f"{value!r} is not a {kind}", f"{least} to {most}")
    if not least <= value <= most:
        raise InputError(f"sampling.{field}", f"{value} is out of range", f"{least} to {most}")
