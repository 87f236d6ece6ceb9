"""What a replica of each stage makes and needs, as measured: read from YAML. Knows no plan and no clock.

Between two measured batch sizes the logarithm of the throughput goes straight over the logarithm of the batch; beyond
the largest one throughput stays, so that more streams on a replica only share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from loadtest.yaml_file import Settings, read_settings

COSTS = Path(__file__).parent / "costs"
FloatArray = npt.NDArray[np.float64]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_PARTS = 8
"""Entries of a curve's table per stream more in the batch."""


class CostPoint(Settings):
    """A replica that works on `batch` utterances at once."""

    batch: int = Field(ge=1)
    audio_s_per_s: Positive = Field(description="seconds of audio made per second, of all of them together")
    first_s: Positive | None = Field(
        default=None, description="until they have their first chunks; null: first_chunk_s by the throughput"
    )


class StageCosts(Settings):
    """One stage."""

    points: tuple[CostPoint, ...] = Field(min_length=1, description="by growing batch")
    first_chunk_s: Positive | None = Field(default=None, description="audio in the first chunk of an utterance")
    start_s: Seconds = Field(description="until a new replica takes its first utterance")
    per_device: int = Field(default=1, ge=1, description="replicas that share a device")
    places: int | None = Field(default=None, ge=1, description="utterances open on a replica; null: the largest batch")
    least: int = Field(default=1, ge=1, description="replicas at least")
    most: int = Field(default=1_000_000, ge=1, description="replicas at most")

    @model_validator(mode="after")
    def _is_a_curve(self) -> StageCosts:
        if any(after.batch <= before.batch for before, after in pairwise(self.points)):
            raise ValueError("points: batch must grow from one to the next")
        if self.first_chunk_s is None and any(point.first_s is None for point in self.points):
            raise ValueError("first_chunk_s: needed where a point has no first_s")
        if self.least > self.most:
            raise ValueError(f"least is {self.least}; it must be at most most ({self.most})")
        return self

    def curve(self) -> Curve:
        places = self.places or self.points[-1].batch
        batches = np.log([point.batch for point in self.points])
        made = np.log([point.audio_s_per_s for point in self.points])
        first = np.log([self._first_s(point) for point in self.points])
        at = np.log(np.maximum(np.arange(places * _PARTS + 1) / _PARTS, 1.0))
        # Beyond the largest batch all wait in turn, so that the first chunks take longer in proportion.
        beyond = np.exp(np.maximum(at - batches[-1], 0.0))
        return Curve(places, 1 / np.exp(np.interp(at, batches, made)), np.exp(np.interp(at, batches, first)) * beyond)

    def _first_s(self, point: CostPoint) -> float:
        if point.first_s is not None:
            return point.first_s
        assert self.first_chunk_s is not None
        return self.first_chunk_s * point.batch / point.audio_s_per_s


@dataclass(frozen=True, slots=True)
class Curve:
    """Tables over the batch in steps of an eighth, up to `places`: replica-seconds per audio second, seconds until
    the first chunk."""

    places: int
    _cost: FloatArray
    _first_s: FloatArray

    def cost(self, batch: npt.NDArray[Any]) -> FloatArray:
        """Replica-seconds per audio second at batches of any size up to `places`."""
        found: FloatArray = self._cost[np.minimum(np.rint(batch * _PARTS).astype(np.int64), len(self._cost) - 1)]
        return found

    def first_s(self, batch: npt.NDArray[Any]) -> FloatArray:
        """Seconds until an utterance has its first chunk in a batch of that size."""
        found: FloatArray = self._first_s[np.minimum(np.rint(batch * _PARTS).astype(np.int64), len(self._first_s) - 1)]
        return found

    def real_time_places(self) -> int:
        """Most utterances that a replica serves at their listeners' speed, at least one."""
        batches = np.arange(1, self.places + 1)
        kept = batches[self._cost[batches * _PARTS] * batches <= 1 + 1e-9]
        return int(kept[-1]) if len(kept) else 1


class Costs(Settings):
    """All stages, in the order in which sound passes them."""

    name: str = Field(min_length=1, max_length=60)
    measured: str = Field(min_length=1, description="command, machine, versions and date of the figures")
    device: str = Field(min_length=1, description="what one device is: a GPU, a core")
    stages: dict[str, StageCosts] = Field(min_length=1)

    @classmethod
    def from_yaml(cls, given: str) -> Costs:
        """A file, or the name of one that ships. Raises ScenarioError that names field and what is allowed."""
        return read_settings(cls, given, COSTS, "costs file")[0]
