"""Sends one level's requests at their times and records what became of each.

Open loop: arrivals are fixed before the level begins; nothing that the service does delays one. Closed loop: each user
asks again after the answer, which is how few patient users behave, and hides what a queue would do to others; its
latencies are comparable among closed loops only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.arrivals import Offsets
from loadtest.doors.door import Answer, Door, DoorError
from loadtest.listener import Listener
from loadtest.pulse import ClientLoad, Pulse
from loadtest.record import ErrorKind, Failure, Record
from loadtest.request import Draw, PlannedRequest

Progress = Callable[[float, int, int], None]
"""(seconds since the level began, requests running, requests done)."""

_TELL_EACH_S = 0.25
# Between planning and the first arrival, so that even one at 0 can be sent in time.
_LEAD_IN_S = 0.05


@dataclass(frozen=True, slots=True)
class LevelRun:
    """Records of one level in order of their intended start, and how the client itself did."""

    records: tuple[Record, ...]
    client: ClientLoad
    measured_from_s: float
    measured_until_s: float


class LevelRunner:
    """Runs one level; use once."""

    def __init__(
        self,
        doors: Mapping[str, Door],
        draw: Draw,
        *,
        warm_up_s: float,
        duration_s: float,
        timeout_s: float,
        first_number: int = 0,
        progress: Progress = lambda _seconds, _running, _done: None,
    ) -> None:
        """Requests are `draw.request(first_number)` and following; those intended within the warm-up are marked."""
        self._doors = doors
        self._draw = draw
        self._warm_up_s = warm_up_s
        self._end_s = warm_up_s + duration_s
        self._timeout_s = timeout_s
        self._next_number = first_number
        self._progress = progress
        self._records: list[Record] = []
        self._running = 0
        self._streams_max = 0
        self._began = 0.0

    async def open_loop(self, offsets: Offsets) -> LevelRun:
        """Each request at its offset, whatever became of those before."""
        # Drawn before the clock starts: drawing a thousand takes as long as a few requests.
        planned = [(offset, self._draw.request(self._number())) for offset in offsets if offset < self._end_s]

        async def arrivals() -> None:
            async with asyncio.TaskGroup() as listeners:
                for offset, request in planned:
                    await asyncio.sleep(self._began + offset - _now())
                    listeners.create_task(self._ask(request, offset))

        return await self._run(arrivals())

    async def closed_loop(self, users: int, think_s: float) -> LevelRun:
        """`users` who each ask again once they have the answer; none asks after the level's end."""

        async def user() -> None:
            await asyncio.sleep(self._began - _now())
            while (intended := _now() - self._began) < self._end_s:
                await self._ask(self._draw.request(self._number()), intended)
                await asyncio.sleep(think_s)

        async def all_users() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(users):
                    group.create_task(user())

        return await self._run(all_users())

    async def _run(self, load: Coroutine[Any, Any, None]) -> LevelRun:
        self._began = _now() + _LEAD_IN_S
        telling = asyncio.create_task(self._tell())
        try:
            with Pulse() as pulse:
                await load
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        self._progress(_now() - self._began, 0, len(self._records))
        records = tuple(sorted(self._records, key=lambda record: (record.intended_s, record.number)))
        client = pulse.load([record.sent_s for record in records], self._streams_max)
        return LevelRun(records, client, self._warm_up_s, self._end_s)

    async def _tell(self) -> None:
        while True:
            self._progress(_now() - self._began, self._running, len(self._records))
            await asyncio.sleep(_TELL_EACH_S)

    async def _ask(self, request: PlannedRequest, intended_s: float) -> None:
        self._running += 1
        self._streams_max = max(self._streams_max, self._running)
        try:
            hearing = Hearing(request, self._doors[request.door], self._began + intended_s, self._timeout_s)
            await hearing.listen()
            self._records.append(hearing.record(intended_s, warm_up=intended_s < self._warm_up_s))
        finally:
            self._running -= 1

    def _number(self) -> int:
        number = self._next_number
        self._next_number += 1
        return number


class Hearing:
    """One request from its sending to its end, whatever that is; never raises for what the service does."""

    def __init__(self, request: PlannedRequest, door: Door, intended: float, timeout_s: float) -> None:
        """intended: moment on the event loop's clock."""
        self._request = request
        self._door = door
        self._intended = intended
        self._timeout_s = timeout_s
        self._listener = Listener()
        self._answer: Answer | None = None
        self._sent = self._ended = intended
        self._left = False
        self._failure: Failure | None = None

    async def listen(self) -> None:
        leaves = self._request.leaves_after_s
        leaves_first = leaves is not None and leaves < self._timeout_s
        limit = leaves if leaves is not None and leaves_first else self._timeout_s
        self._sent = _now()
        try:
            async with asyncio.timeout_at(self._intended + limit) as patience:
                async with self._door.speak(self._request) as self._answer:
                    async for samples in self._answer:
                        self._listener.heard(_now() - self._intended, samples, self._answer.sample_rate)
                    # The time to say goodbye is not the service's.
                    self._ended = _now()
                    patience.reschedule(None)
            self._check_whole(self._answer)
        except TimeoutError:
            self._ended = _now()
            self._left = leaves_first
            if not self._left:
                self._failure = Failure(ErrorKind.TIMEOUT, f"not done after {self._timeout_s:g} s")
        except DoorError as error:
            self._ended = _now()
            self._failure = Failure(error.kind, error.detail)

    def _check_whole(self, answer: Answer) -> None:
        if not self._listener.arrivals:
            self._failure = Failure(ErrorKind.SHORT, "the answer held no audio")
        elif answer.declared_bytes is not None and answer.received_bytes < answer.declared_bytes:
            detail = f"{answer.received_bytes} of {answer.declared_bytes} declared bytes came"
            self._failure = Failure(ErrorKind.SHORT, detail)

    def record(self, intended_s: float, *, warm_up: bool) -> Record:
        request, answer = self._request, self._answer
        return Record(
            number=request.number,
            door=request.door,
            language=request.language,
            length=request.length,
            characters=len(request.text),
            voice_kind=request.voice_kind,
            warm_up=warm_up,
            request_id=answer.request_id if answer else "",
            intended_s=round(intended_s, 6),
            sent_s=round(self._sent - self._intended, 6),
            ended_s=round(self._ended - self._intended, 6),
            arrivals=self._listener.arrivals,
            leading_silence_s=round(self._listener.leading_silence_s, 6),
            received_bytes=answer.received_bytes if answer else 0,
            declared_bytes=answer.declared_bytes if answer else None,
            left=self._left,
            failure=self._failure,
            stages=answer.stages if answer else (),
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
