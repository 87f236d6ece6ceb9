"""A scenario: what is asked, how often, and what counts as good; read from plain YAML, checked field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loadtest.yaml_file import Settings, read_settings

SCENARIOS = Path(__file__).parent / "scenarios"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Length = Literal["short", "sentence", "paragraph", "long"]
VoiceKind = Literal["known", "repeated", "new"]
"""A saved voice by name; one upload that all requests share; an upload that the service has never seen."""


class PoissonLoad(Settings):
    """Open loop: independent arrivals at each of the rates (requests per second)."""

    kind: Literal["poisson"]
    rates: tuple[Positive, ...] = Field(min_length=1)


class BurstLoad(Settings):
    """Open loop: the same average rates, in bursts of `size` within `spread_s`."""

    kind: Literal["bursts"]
    rates: tuple[Positive, ...] = Field(min_length=1)
    size: int = Field(ge=2)
    spread_s: Positive = 0.2


class TraceLoad(Settings):
    """Open loop: recorded arrivals from a file (see `loadtest.arrivals.trace`), at each of the speeds."""

    kind: Literal["trace"]
    file: Path
    speeds: tuple[Positive, ...] = (1.0,)


class ClosedLoad(Settings):
    """Closed loop: users who ask again as soon as they have heard everything, and paused for `think_s`."""

    kind: Literal["closed"]
    users: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    think_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)


Load = Annotated[PoissonLoad | BurstLoad | TraceLoad | ClosedLoad, Field(discriminator="kind")]


class Mix(Settings):
    """Shares (any positive numbers) of what requests are; each is drawn independently."""

    doors: dict[str, Weight] = Field(default={"http-wav": 1.0})
    languages: dict[str, Weight] = Field(default={"en": 1.0})
    lengths: dict[Length, Weight] = Field(default={"sentence": 1.0})
    voices: dict[VoiceKind, Weight] = Field(default={"known": 1.0})
    names: tuple[str, ...] = Field(default=(), description="known voices to use; none: all the service has")
    cancels: float = Field(default=0.0, ge=0, le=1, description="share of listeners who leave early")
    cancel_within_s: Positive = Field(default=5.0, description="they leave at a random moment up to this after asking")
    realtime: bool = Field(default=True, description="false: the service may run ahead of the listener without bound")

    @model_validator(mode="after")
    def _something_has_weight(self) -> Mix:
        for name in ("doors", "languages", "lengths", "voices"):
            if sum(getattr(self, name).values()) <= 0:
                raise ValueError(f"{name}: at least one share must be greater than 0")
        return self


class Slo(Settings):
    """What a listener accepts."""

    first_audio_s: Positive = Field(default=1.0, description="first audio at most this long after the request")
    gap_tolerance_s: float = Field(
        default=0.1, ge=0, allow_inf_nan=False, description="silence through late chunks that still passes as gap-free"
    )
    goodput: float = Field(default=0.99, gt=0, le=1, description="share of requests that must be good")


class Writing(Settings):
    """How fast the text of doors that take it piece by piece is written, as a language model would."""

    pieces_per_s: Positive = 40.0
    piece_characters: int = Field(default=4, ge=1)


class Scenario(Settings):
    """A load test."""

    name: str = Field(min_length=1, max_length=60)
    description: str = ""
    seed: int = Field(default=1, ge=0)
    load: Load
    mix: Mix = Mix()
    slo: Slo = Slo()
    writing: Writing = Writing()
    warm_up_s: float = Field(default=5.0, ge=0, allow_inf_nan=False, description="excluded, at the start of each level")
    duration_s: Positive = Field(default=30.0, description="measured, after the warm-up, per level")
    timeout_s: Positive = Field(default=120.0, description="a request that is not done by then is an error")
    texts: Path | None = Field(default=None, description="folder of texts, instead of the shipped ones")

    @classmethod
    def from_yaml(cls, given: str) -> Scenario:
        """A file, or the name of a shipped scenario. Raises ScenarioError that names field and what is allowed."""
        scenario, file = read_settings(cls, given, SCENARIOS, "scenario")
        return scenario.model_copy(update=_from_here(scenario, file.parent))


def _from_here(scenario: Scenario, folder: Path) -> dict[str, object]:
    """Relative paths of a scenario are meant from its own folder."""
    found: dict[str, object] = {}
    if scenario.texts is not None:
        found["texts"] = folder / scenario.texts
    if isinstance(scenario.load, TraceLoad):
        found["load"] = scenario.load.model_copy(update={"file": folder / scenario.load.file})
    return found
