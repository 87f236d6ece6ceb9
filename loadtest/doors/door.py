"""What a client of a door is: it asks, and gives samples as they come. It takes no times; whoever listens does that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from loadtest.listener import Samples
from loadtest.record import ErrorKind, StageTime
from loadtest.request import PlannedRequest


class DoorError(Exception):
    """The request failed in a way that has a kind."""

    def __init__(self, kind: ErrorKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail[:300]


class Answer(Protocol):
    """An answer that has begun. Iterate it once; errors on the way are raised as DoorError.

    received_bytes and declared_bytes: of the body as the protocol has it; None where it declares no length. stages:
    the service's account of its first audio, complete at the latest when the first samples have come.
    """

    @property
    def sample_rate(self) -> int: ...

    @property
    def request_id(self) -> str: ...

    @property
    def received_bytes(self) -> int: ...

    @property
    def declared_bytes(self) -> int | None: ...

    @property
    def stages(self) -> tuple[StageTime, ...]: ...

    def __aiter__(self) -> AsyncIterator[Samples]: ...


class Door(Protocol):
    """One way into the service. Many requests run through one door object at the same time."""

    def speak(self, request: PlannedRequest) -> AbstractAsyncContextManager[Answer]:
        """Entering asks and waits until the answer begins (DoorError if it does not); leaving before its end hangs
        up, as a listener who has gone does."""
        ...

    async def close(self) -> None: ...
