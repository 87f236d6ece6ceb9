"""Small plans and costs for tests."""

from __future__ import annotations

from loadtest.simulation.plan import Plan
from loadtest.simulation.stage_costs import Costs

FAST = {"points": [{"batch": 1, "audio_s_per_s": 2000}], "first_chunk_s": 0.5, "places": 2000, "start_s": 10}
"""One replica is enough for anything here."""


def flat(audio_s_per_s: float, places: int = 8, start_s: float = 20, **more: float) -> dict[str, object]:
    """A stage that gains nothing from batches."""
    points = [{"batch": 1, "audio_s_per_s": audio_s_per_s}]
    return {"points": points, "first_chunk_s": 0.5, "places": places, "start_s": start_s, **more}


def costs(**stages: dict[str, object]) -> Costs:
    """Of three stages, fast ones where none is given."""
    whole = {"SpeechLM": FAST, "FlowDecoder": FAST, "Vocoder": FAST, **stages}
    return Costs.model_validate({"name": "made", "measured": "made up for a test", "device": "none", "stages": whole})


def plan(rate: float, **more: object) -> Plan:
    """Steady traffic on ten nodes of ten devices; `traffic__x`, `cluster__x` and so on set fields within."""
    data: dict[str, object] = {
        "name": "made",
        "duration_s": 900,
        "warm_up_s": 300,
        "traffic": {"peak_per_s": rate, "mean_audio_s": 6, "spread": 0.4},
        "cluster": {"nodes": 10, "devices_per_node": 10},
    }
    for name, value in more.items():
        part, _, field = name.partition("__")
        if field:
            data[part] = {**dict(data.get(part) or {}), field: value}  # type: ignore[call-overload]
        else:
            data[part] = value
    return Plan.model_validate(data)
