"""`autoscaling.decide` as Serve's controller calls it: once for all stages of the application, several times a second.

Serve reads what `record_autoscaling_stats` of each replica gave, and the requests that wait in front of a stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from ray.serve.config import AutoscalingContext

from deployments.autoscaling import ScalingRules, StageLoad, StageMemory, decide

STAGES = ("SpeechLM", "FlowDecoder", "Vocoder")
LAST_STAGE = "Vocoder"
INGRESS = "Ingress"


class ScaleByWork:
    """Application-level autoscaling policy; `policy_kwargs` in the Serve config are the fields of `ScalingRules`.

    Deployments without a step loop (ingress, voice encoder) go by their open requests, as Serve's own policy does.
    """

    def __init__(self, **rules: float) -> None:
        self._rules = ScalingRules(**rules)

    def __call__(self, contexts: Mapping[Any, AutoscalingContext]) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        demand = demanded(contexts.values())
        decisions: dict[Any, int] = {}
        states: dict[Any, dict[str, Any]] = {}
        for deployment, context in contexts.items():
            if deployment.name not in STAGES:
                decisions[deployment] = by_requests(context)
                continue
            memory = StageMemory(**_of_policy(context.policy_state))
            now = float(context.current_time or 0.0)
            decisions[deployment], memory = decide(load_of(context), demand, memory, now, self._rules)
            states[deployment] = asdict(memory)
        return decisions, states


def demanded(contexts: Iterable[AutoscalingContext]) -> float:
    """Audio seconds per second that listeners want: each that is served or waits, be it for admission, plays one a
    second, and what is made for those who play later is wanted too."""
    served = waiting = 0.0
    for context in contexts:
        if context.deployment_name == LAST_STAGE:
            served = max(float(context.total_num_requests), _total(context, "made"))
        elif context.deployment_name == INGRESS:
            waiting = _total(context, "waiting")
    return served + waiting


def load_of(context: AutoscalingContext) -> StageLoad:
    return StageLoad(
        replicas=int(context.current_num_replicas),
        wanted=int(context.target_num_replicas),
        busy=_total(context, "busy"),
        made=_total(context, "made"),
        owed_s=_total(context, "owed_s"),
        least=int(context.capacity_adjusted_min_replicas),
        most=int(context.capacity_adjusted_max_replicas),
    )


def by_requests(context: AutoscalingContext) -> int:
    """Open requests over the target of one replica, within the bounds."""
    target = float(context.config.get_target_ongoing_requests()) if context.config else 1.0
    need = -(-float(context.total_num_requests) // max(target, 1e-9))
    least, most = context.capacity_adjusted_min_replicas, context.capacity_adjusted_max_replicas
    return int(min(max(need, least), most))


def _total(context: AutoscalingContext, name: str) -> float:
    """Sum over replicas of the latest value each has sent."""
    series = (context.raw_metrics or {}).get(name, {})
    return sum(float(values[-1].value) for values in series.values() if values)


def _of_policy(state: Mapping[str, Any] | None) -> dict[str, Any]:
    """Our part of what Serve keeps for a deployment; it adds keys of its own."""
    return {key: value for key, value in (state or {}).items() if key in StageMemory.__dataclass_fields__}
