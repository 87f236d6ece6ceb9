"""What a running application consists of and holds: its replicas and their processes, and what stays in the stages.

Asks Serve's controller through Serve's own client, as Ray 2.60 offers this over its dashboard only, and the stages
through their handles.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import psutil
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ReplicaState, ServeInstanceDetails

from deployments.messages import StageInfo

STAGES = ("VoiceEncoder", "SpeechLM", "FlowDecoder", "Vocoder")
ALL = ("Ingress", *STAGES)


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica that serves; `node` is the id that Ray gives it."""

    deployment: str
    process: int
    node: str

    @property
    def alive(self) -> bool:
        return alive(self.process)


@dataclass(frozen=True, slots=True)
class Application:
    """Replicas that the controller takes to be serving, and whether these are as many as there should be and alive."""

    replicas: tuple[Replica, ...]
    whole: bool


def application(app: str) -> Application:
    """The application as the controller knows it now; blocks for some milliseconds."""
    details = ServeInstanceDetails.model_validate(_get_global_client().get_serve_details())
    found: list[Replica] = []
    whole = True
    for name, deployment in details.applications[app].deployments.items():
        states = [replica.state for replica in deployment.replicas]
        whole = whole and states == [ReplicaState.RUNNING] * deployment.target_num_replicas
        found.extend(
            Replica(name, replica.pid, replica.node_id)
            for replica in deployment.replicas
            if replica.state is ReplicaState.RUNNING and replica.pid and replica.node_id
        )
    return Application(tuple(found), whole and all(replica.alive for replica in found))


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def engines_of(process: int) -> list[int]:
    """vLLM's engine processes below a replica."""
    try:
        children = psutil.Process(process).children(recursive=True)
        return [child.pid for child in children if "EngineCore" in "".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


async def stage_infos(app: str, timeout_s: float = 30) -> list[StageInfo]:
    """What every replica says of itself, ingress included. A handle's calls go anywhere, so each is asked until all
    have answered; raises TimeoutError."""
    wanted = {
        stage: {replica.process for replica in (await asyncio.to_thread(application, app)).replicas
                if replica.deployment == stage}
        for stage in ALL
    }  # fmt: skip
    found: dict[int, StageInfo] = {}
    async with asyncio.timeout(timeout_s):
        for stage, processes in wanted.items():
            handle = serve.get_deployment_handle(stage, app)
            while not processes <= found.keys():
                for info in await asyncio.gather(*(handle.info.remote() for _ in range(4))):
                    found[info.process] = info
    return list(found.values())


async def until(true: Callable[[], bool], timeout_s: float, look_s: float = 0.1) -> bool:
    """Whether a condition, asked in a thread, became true in time."""
    deadline = time.monotonic() + timeout_s
    while not await asyncio.to_thread(true):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(look_s)
    return True


@dataclass(frozen=True, slots=True)
class Left:
    """Calls open, and what is held for calls, by deployment; those with none are left out."""

    running: dict[str, int]
    held: dict[str, int]

    def __bool__(self) -> bool:
        return bool(self.running or self.held)


async def left_in(app: str, patience_s: float) -> Left:
    """What there is after replicas had time to notice that all calls have ended."""
    deadline = time.monotonic() + patience_s
    while True:
        running, held = Counter[str](), Counter[str]()
        for info in await stage_infos(app):
            running[info.stage] += info.running
            held[info.stage] += info.held
        left = Left({name: count for name, count in running.items() if count}, {n: c for n, c in held.items() if c})
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.5)
