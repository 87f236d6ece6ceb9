"""What stages say of themselves, and which have a replica that is ready, as Serve's controller sees it.

A replica is ready when its model is warm. The controller is asked for that and not the stages: one that is busy answers
late, and a probe that took that for a failure would take servers away under load, when they are needed most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ReplicaState

from deployments.messages import StageInfo

_INFO_TIMEOUT_S = 2.0

ReadyReplicas = Callable[[], dict[str, int]]
"""Ready replicas by deployment. Blocks; raises whatever when the controller cannot be asked."""


async def infos_of(stages: dict[str, DeploymentHandle]) -> dict[str, StageInfo | None]:
    """What each stage says of itself; None where none answers in time."""

    async def ask(handle: DeploymentHandle) -> StageInfo | None:
        try:
            async with asyncio.timeout(_INFO_TIMEOUT_S):
                info: StageInfo = await handle.info.remote()
                return info
        except Exception:  # noqa: BLE001 - whatever is wrong with a stage, health says that it is
            return None

    infos = await asyncio.gather(*(ask(handle) for handle in stages.values()))
    return dict(zip(stages, infos, strict=True))


def replicas_of_this_application() -> dict[str, int]:
    """Of the application that this replica is part of."""
    app = serve.status().applications[serve.get_replica_context().app_name]
    return {name: state.replica_states.get(ReplicaState.RUNNING, 0) for name, state in app.deployments.items()}


class StageStates:
    """Asks once for all who ask together."""

    def __init__(self, stages: tuple[str, ...], ask: ReadyReplicas, *, timeout_s: float = 2.0) -> None:
        self._stages = stages
        self._ask = ask
        self._timeout_s = timeout_s
        self._asking: asyncio.Task[dict[str, int]] | None = None
        self._known: dict[str, int] | None = None

    async def without_replica(self) -> tuple[str, ...]:
        """Stages without a ready replica. When the controller does not answer, as it was known last, as stages go on
        without it; all of them when nothing ever was."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(asyncio.to_thread(self._ask))
        try:
            self._known = await asyncio.wait_for(asyncio.shield(self._asking), self._timeout_s)
        except Exception:  # noqa: BLE001 - whatever the controller's trouble is
            if self._known is None:
                return self._stages
        return tuple(stage for stage in self._stages if not self._known.get(stage))
