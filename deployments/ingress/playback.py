"""Segments of a text in the order they are heard, the next one made while the present one plays.

Knows neither HTTP nor stages: it is given a way to start an utterance and yields chunks of the whole answer.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from cosyvoice_core.inputs import FloatArray
from cosyvoice_core.utterance import Utterance
from deployments.args import PlaybackArgs
from deployments.compute import ListenerClock
from deployments.messages import FROM_THE_START, AudioHop, ResumePoint, SegmentStart, SpeechChunk, StreamCutError

Start = Callable[[Utterance, float], AsyncGenerator[AudioHop, None]]
"""(utterance, seconds of audio the listener still has before it) -> its audio."""

NextUtterance = Callable[[], Awaitable[Utterance | None]]


class _Segment:
    """One utterance being synthesised into a queue; bounded because an utterance's length is."""

    def __init__(self, utterance: Utterance, hops: AsyncGenerator[AudioHop, None]) -> None:
        self.index = utterance.index
        self.text = utterance.text
        self.speed = utterance.speed
        self._hops: asyncio.Queue[AudioHop | BaseException] = asyncio.Queue()
        self._task = asyncio.create_task(self._fill(hops))

    async def _fill(self, hops: AsyncGenerator[AudioHop, None]) -> None:
        try:
            async for hop in hops:
                self._hops.put_nowait(hop)
        except asyncio.CancelledError:
            # Whoever plays this segment has gone, or else must not wait for it for ever.
            self._hops.put_nowait(StreamCutError("the segment was cancelled while it was played"))
            raise
        except Exception as error:  # noqa: BLE001 - handed to whoever plays this segment
            self._hops.put_nowait(error)
        finally:
            await hops.aclose()

    async def hops(self) -> AsyncGenerator[AudioHop, None]:
        last = False
        while not last:
            hop = await self._hops.get()
            if isinstance(hop, BaseException):
                raise hop
            last = hop.last
            yield hop

    def cancel(self) -> None:
        """Stop it, without waiting."""
        self._task.cancel()

    async def closed(self) -> None:
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Pace:
    """How far ahead of what is heard an answer is made.

    look_ahead: segments at most beyond the one that is heard; run_ahead_s: no further one is started while a listener
    in real time would be this far behind; lead_s: seconds that others, who need their audio sooner, go first.
    """

    look_ahead: int
    run_ahead_s: float = math.inf
    lead_s: float = 0.0

    @classmethod
    def listener(cls, args: PlaybackArgs) -> Pace:
        """Of an answer that is heard while it is made."""
        return cls(args.look_ahead_segments, run_ahead_s=args.max_run_ahead_s)

    @classmethod
    def file(cls, args: PlaybackArgs) -> Pace:
        """Of one that is not. It gets what listeners leave, and is not left out for ever."""
        return cls(args.look_ahead_segments, lead_s=args.file_lead_s)

    @classmethod
    def script(cls, args: PlaybackArgs) -> Pace:
        """Of many lines that are not heard while they are made."""
        return cls(args.script_look_ahead, run_ahead_s=args.script_run_ahead_s, lead_s=args.file_lead_s)


class SegmentPlayer:
    """Plays utterances one after another.

    A segment is started when the one before it has given its first audio (so that it never delays it), and only as far
    ahead as its `Pace` allows: a text of an hour is held a few segments at a time. Nothing is started while nobody
    takes the chunks.
    """

    def __init__(
        self,
        next_utterance: NextUtterance,
        start: Start,
        pace: Pace,
        *,
        sample_rate: int,
        pause_s: Callable[[int], float],
        ready: Callable[[], bool] = lambda: True,
        resume: ResumePoint = FROM_THE_START,
    ) -> None:
        """pause_s: seconds of silence before a segment, by its number; not asked for the first of all.

        ready: whether the next utterance can be had without waiting for its text.
        resume: the utterances begin with the segment it names; what it says was heard is computed, but left out.
        """
        self._next_utterance = next_utterance
        self._start = start
        self._ready = ready
        self._pace = pace
        self._sample_rate = sample_rate
        self._pause_s = pause_s
        self._resumed_segment = resume.segment
        self._skip = resume.samples
        self._position = 0
        self._begins: SegmentStart | None = None
        self._clock = ListenerClock()
        self._upcoming: deque[_Segment] = deque()
        self._exhausted = False

    async def play(self) -> AsyncGenerator[SpeechChunk, None]:
        """Chunks of the whole answer; the last one is empty and says so. Closing it stops everything started."""
        current: _Segment | None = None
        try:
            current = await self._next_segment()
            if current is not None and self._resumed_segment > 0:
                for chunk in self._chunk(self._pause(current), current.index):
                    yield chunk
            while current is not None:
                self._begins = SegmentStart(current.text, self._position, current.speed)
                async for hop in current.hops():
                    for chunk in self._chunk(hop.samples, current.index):
                        yield chunk
                    if len(hop.samples):
                        await self._look_ahead()
                following = await self._next_segment()
                if following is None:
                    yield SpeechChunk(np.zeros(0, np.float32), current.index, last=True)
                current = following
                if current is not None:
                    for chunk in self._chunk(self._pause(current), current.index):
                        yield chunk
        finally:
            # All before any is waited for: who is cancelled may be cancelled again while he waits (anyio does so at
            # every step), and what he has not come to would go on by itself.
            segments = (*self._upcoming, *([current] if current else []))
            for segment in segments:
                segment.cancel()
            for segment in segments:
                await segment.closed()

    def _chunk(self, samples: FloatArray, segment: int) -> list[SpeechChunk]:
        """What of these samples has not been heard, as one chunk, or none."""
        self._position += len(samples)
        skipped = min(self._skip, len(samples))
        self._skip -= skipped
        rest = samples[skipped:]
        if not len(rest):
            return []
        self._clock.sent(len(rest) / self._sample_rate)
        begins, self._begins = self._begins, None
        return [SpeechChunk(rest, segment, begins=begins)]

    def _pause(self, segment: _Segment) -> FloatArray:
        # What came before says nothing of the silence.
        self._begins = None
        return np.zeros(round(self._pause_s(segment.index) * self._sample_rate), np.float32)

    async def _look_ahead(self) -> None:
        while len(self._upcoming) < self._pace.look_ahead and self._overrun_s <= 0 and self._ready():
            segment = await self._open()
            if segment is None:
                return
            self._upcoming.append(segment)

    async def _next_segment(self) -> _Segment | None:
        if self._upcoming:
            return self._upcoming.popleft()
        if not self._exhausted:
            await asyncio.sleep(max(self._overrun_s, 0))
        return await self._open()

    async def _open(self) -> _Segment | None:
        if self._exhausted:
            return None
        utterance = await self._next_utterance()
        if utterance is None:
            self._exhausted = True
            return None
        lead_s = max(self._clock.ahead_s, 0.0) + self._pace.lead_s
        return _Segment(utterance, self._start(utterance, lead_s))

    @property
    def _overrun_s(self) -> float:
        """How much further than allowed the service is ahead of a real-time listener."""
        return self._clock.ahead_s - self._pace.run_ahead_s
