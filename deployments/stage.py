"""What all stages share: how they call each other, and where they compute."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import torch
from grpc import StatusCode
from grpc.aio import AioRpcError
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.handle import DeploymentHandle

from deployments.args import DType, PlaybackArgs, StageArgs
from deployments.heap import HeapTrim
from deployments.messages import StreamCancelledError, StreamCutError
from deployments.pulse import SilentError, without_pulse
from deployments.text_source import cause_of


class OpenCalls:
    """Counts the calls a replica has open; enter it for as long as one lasts. Gives back what it held after it."""

    def __init__(self) -> None:
        self.count = 0
        self._heap = HeapTrim()

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_error: object) -> None:
        self.count -= 1
        self._heap.freed()


class Hop(Protocol):
    @property
    def last(self) -> bool: ...


AnyHop = TypeVar("AnyHop", bound=Hop)


def resolve_device(args: StageArgs) -> torch.device:
    """The device of a stage; `auto` takes a GPU if Ray gave this replica one."""
    if args.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(args.device)


def resolve_dtype(dtype: DType) -> torch.dtype:
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]


@asynccontextmanager
async def hops_of(
    kind: type[AnyHop], handle: DeploymentHandle, method: str, *args: Any, silence_s: float
) -> AsyncIterator[AsyncIterator[AnyHop]]:
    """Open a stream of hops of one kind from another stage; leaving the context cancels whatever is left of it.

    The stream goes replica to replica by gRPC: half the latency of object references, and the upstream stage stops
    when this process dies. Raises StreamCutError from the iterator when the stream ends without its last hop, breaks
    on the way, or gives no sign of life for `silence_s`, and errors that the request is to blame for as what they are.
    """
    stream = handle.options(method_name=method, stream=True, _by_reference=False).remote(*args)
    ended = False

    async def iterate() -> AsyncIterator[AnyHop]:
        nonlocal ended
        last = False
        try:
            async for hop in without_pulse(aiter(stream), silence_s):
                last = hop.last
                yield hop
        except SilentError as error:
            raise StreamCutError(f"the stream of {method!r} broke: {error}") from None
        except RayTaskError as error:
            raise cause_of(error) from None
        except AioRpcError as error:
            # Serve makes an actor's error of UNAVAILABLE only; a replica that goes also gives CANCELLED and others.
            kind = StreamCancelledError if error.code() is StatusCode.CANCELLED else StreamCutError
            raise kind(f"the stream of {method!r} broke: {error.code().name}") from None
        ended = True
        if not last:
            raise StreamCutError(f"the stream of {method!r} ended before its last hop")

    try:
        yield iterate()
    finally:
        if not ended:
            stream.cancel()


async def answer_of(handle: DeploymentHandle, method: str, *args: Any, playback: PlaybackArgs) -> Any:
    """The one answer of a stage's method that may be asked again, which it is elsewhere when its replica is lost.

    By gRPC as streams are: the answer is nowhere but here, so that no node's death can take it back. Raises what the
    stage raises, and StreamCutError when replicas were lost too often; playback says how often, see `audio_of`.
    """
    call = handle.options(method_name=method, stream=True, _by_reference=False)
    failures = 0
    while True:
        stream, ended = call.remote(*args), False
        try:
            answers = [answer async for answer in without_pulse(aiter(stream), playback.silence_timeout_s)]
            ended = True
            if answers:
                return answers[0]
            raise StreamCutError(f"{method!r} ended without an answer")
        except RayTaskError as error:
            raise cause_of(error) from None
        except (RayActorError, AioRpcError, SilentError, StreamCutError) as error:
            failures += 1
            if failures > playback.max_replays:
                raise StreamCutError(f"{method!r} was lost with its replica") from error
        finally:
            if not ended:
                stream.cancel()
        if failures > 1:
            await asyncio.sleep(playback.replay_pause_s * 2 ** (failures - 2))
