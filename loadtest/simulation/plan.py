"""A plan: traffic over a day, the cluster it meets, who is let in; read from YAML, checked field by field."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from deployments.autoscaling import ScalingRules
from loadtest.simulation.stage_costs import Positive, Seconds
from loadtest.yaml_file import Settings, read_settings

PLANS = Path(__file__).parent / "plans"
DAY_S = 86_400
_RULES = tuple(field.name for field in fields(ScalingRules))

Hour = Annotated[float, Field(ge=0, lt=24)]


class Burst(Settings):
    """A time at which traffic is `factor` times what it is otherwise."""

    at_h: Hour
    lasts_s: Positive
    factor: Positive


class Traffic(Settings):
    """Utterances that are asked for. curve: of any size, at equal distances around the day, straight between."""

    peak_per_s: Positive = Field(description="utterances per second where the curve is highest, bursts aside")
    curve: tuple[Seconds, ...] = Field(default=(1.0,), min_length=1)
    bursts: tuple[Burst, ...] = ()
    mean_audio_s: Positive = Field(default=6.0, description="length of an utterance, log-normal")
    spread: float = Field(default=0.5, ge=0, le=3, description="standard deviation of the length's logarithm")
    longest_audio_s: Positive = Field(default=60.0, description="longer ones are cut to this")

    @model_validator(mode="after")
    def _has_a_peak(self) -> Traffic:
        if max(self.curve) <= 0:
            raise ValueError("curve: at least one value must be greater than 0")
        return self


class Loss(Settings):
    """So many nodes at once, drawn by the seed, that are lost; after `back_after_s` they are back, empty."""

    at_h: Hour
    nodes: int = Field(ge=1)


class ClusterPlan(Settings):
    """Nodes of equal devices."""

    nodes: int = Field(ge=1)
    devices_per_node: int = Field(ge=1)
    losses: tuple[Loss, ...] = ()
    losses_per_node_day: Seconds = Field(default=0.0, description="of each node by itself, at random times")
    back_after_s: Seconds = 600.0


class Admission(Settings):
    """Who is refused at once: whose first audio is predicted later than this.

    gap_free: a replica takes no more utterances than it makes at their listeners' speed; without it, as many as it has
    places.
    """

    first_audio_s: Positive = 2.0
    gap_free: bool = True


class Goals(Settings):
    """What counts as good, as in a load test's scenario."""

    first_audio_s: Positive = 1.0
    gap_tolerance_s: Seconds = 0.1
    goodput: float = Field(default=0.99, gt=0, le=1)


class Plan(Settings):
    """A day, or a part of it from midnight on."""

    name: str = Field(min_length=1, max_length=60)
    description: str = ""
    seed: int = Field(default=1, ge=0)
    duration_s: int = Field(default=DAY_S, ge=60, le=7 * DAY_S)
    warm_up_s: int = Field(default=1800, ge=0, description="simulated before midnight, excluded")
    traffic: Traffic
    cluster: ClusterPlan
    admission: Admission = Admission()
    slo: Goals = Goals()
    rules: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        default_factory=dict, description="fields of ScalingRules that are not the default"
    )

    @model_validator(mode="after")
    def _rules_are_known(self) -> Plan:
        unknown = sorted(set(self.rules) - set(_RULES))
        if unknown:
            raise ValueError(f"rules: unknown {', '.join(unknown)}; allowed are {', '.join(_RULES)}")
        self.scaling_rules()
        return self

    def scaling_rules(self) -> ScalingRules:
        """Raises ValueError for a rule out of its range."""
        return ScalingRules(**self.rules)

    @classmethod
    def from_yaml(cls, given: str, **changes: object) -> Plan:
        """A file, or the name of a shipped plan, with changed fields. Raises ScenarioError that names the field and
        what is allowed."""
        return read_settings(cls, given, PLANS, "plan", changes)[0]
