"""The scaling decision as Serve's controller asks for it: real contexts, as Ray 2.60 builds them."""

from __future__ import annotations

from typing import Any

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from deployments.scaling_policy import ScaleByWork


def context(name: str, requests: float, state: dict[str, Any] | None = None, **measured: float) -> AutoscalingContext:
    """One replica that has reported twice; only what it said last counts."""
    deployment = DeploymentID(name, "cosyvoice")
    replica = ReplicaID("r1", deployment)
    reports = {
        key: {replica: [TimeStampedValue(1.0, 1e6), TimeStampedValue(2.0, value)]} for key, value in measured.items()
    }
    return AutoscalingContext(
        deployment_id=deployment,
        deployment_name=name,
        app_name="cosyvoice",
        current_num_replicas=1,
        target_num_replicas=1,
        running_replicas=[replica],
        total_num_requests=requests,
        total_queued_requests=0,
        aggregated_metrics=None,
        raw_metrics=reports,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=8,
        policy_state=state or {},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=100.0,
        config=AutoscalingConfig(target_ongoing_requests=10),
    )


def decided(requests: float, states: dict[str, dict[str, Any]] | None = None) -> dict[str, tuple[int, dict[str, Any]]]:
    """Targets and states by name: a flow decoder that works nine tenths of its time for 3 audio s/s."""
    states = states or {}
    contexts = [
        context("Ingress", requests),
        context("SpeechLM", requests, states.get("SpeechLM"), busy=0.2, made=3.0, owed_s=0.0),
        context("FlowDecoder", requests, states.get("FlowDecoder"), busy=0.9, made=3.0, owed_s=0.0),
        context("Vocoder", requests, states.get("Vocoder"), busy=0.1, made=3.0, owed_s=0.0),
    ]
    targets, kept = ScaleByWork(utilisation=0.6, growth=10)({one.deployment_id: one for one in contexts})
    return {deployment.name: (target, kept.get(deployment, {})) for deployment, target in targets.items()}


def test_listeners_and_measured_cost_make_the_targets() -> None:
    """12 listeners at 0.3 replica-seconds a second of audio, planned to 0.6: six flow decoders."""
    found = decided(12)
    assert {name: target for name, (target, _) in found.items()} == {
        "Ingress": 2,
        "SpeechLM": 1,
        "FlowDecoder": 6,
        "Vocoder": 1,
    }
    assert abs(found["FlowDecoder"][1]["cost"] - 0.3) < 1e-9


def test_what_is_made_is_wanted_even_when_few_streams_are_open() -> None:
    assert decided(1)["FlowDecoder"][0] == 2


def test_memory_goes_from_one_decision_to_the_next_beside_keys_of_serves_own() -> None:
    states = {name: state for name, (_, state) in decided(12).items()}
    states["FlowDecoder"]["__decision_counters"] = 3
    # It has just grown and waits before it grows again.
    assert decided(12, states)["FlowDecoder"][0] == 1
    assert "__decision_counters" not in decided(12, states)["FlowDecoder"][1]
