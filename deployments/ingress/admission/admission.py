"""Admission of one ingress replica: a listener is let in while all can be heard without gaps, waits, or is refused.

A listener plays one second of audio a second, so as many can be served as the stages make audio seconds per second
(`Capacity`), less a margin. How large that must be depends on how the stages share their time, so it is learnt: it
grows with a listener who heard a gap, and shrinks with each who did not, such that it rests where as few hear gaps as
allowed (stochastic approximation of a quantile, Robbins and Monro 1951). Whoever comes beyond that waits, and is
refused at once when he would hear nothing for longer than allowed. Nothing is taken from those who are in. Files, which
nobody listens to while they are made, get what listeners leave, so that only their number is bounded. Knows neither
doors nor stages.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from deployments.args import AdmissionArgs
from deployments.ingress.admission.capacity import Capacity
from deployments.ingress.admission.gate import Gate, NoRoomError
from deployments.mailbox import OverloadedError
from deployments.messages import AudioHop
from deployments.player import HIDDEN_S, Player

_LATEST = 0.2
"""Weight of the latest listener in the averages over all."""

_MARGIN_STEP = 0.3
"""Logarithm of the factor by which one gap widens the margin."""

_NO_ROOM = "the service has no room for more listeners now"


class Listening:
    """One listener who is in; told of the audio that leaves for him."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._player = Player(clock)
        self.since = clock()

    def heard(self, audio_s: float) -> None:
        """So much audio leaves now."""
        self._player.take(audio_s)

    @property
    def silence_s(self) -> float:
        """In which he waits for more, all in all."""
        return self._player.silence_s

    @property
    def first_audio_s(self) -> float | None:
        """From being let in to the first audio."""
        return None if self._player.first_at is None else self._player.first_at - self.since

    @property
    def held_s(self) -> float:
        return self._clock() - self.since


class Admission:
    """Who is in, who waits, and what is predicted for the next one."""

    def __init__(self, args: AdmissionArgs, sample_rate: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._args = args
        self._sample_rate = sample_rate
        self._clock = clock
        self._capacity = Capacity(clock=clock)
        self._listeners = Gate(self._serves_one_more, args.max_waiting)
        self._files = Gate(self._makes_one_more_file, args.max_waiting)
        self._first_audio_s = 0.0
        self._held_s = 0.0
        self._margin = args.margin
        self._widened = -math.inf

    def reconfigure(self, args: AdmissionArgs) -> None:
        """Other rules for those who come from now on, and for those who wait; nobody who is in is sent away."""
        self._args = args
        self._margin = max(self._margin, args.margin)
        for gate in (self._listeners, self._files):
            gate.max_waiting = args.max_waiting
            gate.admit()

    @property
    def listeners(self) -> int:
        """Those who are in: their audio is not all made yet."""
        return self._listeners.inside

    @property
    def waiting(self) -> int:
        return self._listeners.waiting + self._files.waiting

    @property
    def most_listeners(self) -> int:
        """So many can be in, as far as is known."""
        rate = self._capacity.rate
        if rate is None:
            return self._args.unproven_listeners
        return max(int(rate / self._margin), 1)

    @property
    def margin(self) -> float:
        """Audio seconds that the stages must be able to make for each that is played."""
        return self._margin

    @asynccontextmanager
    async def listener(self, priority: int, *, complete: bool = True) -> AsyncIterator[Listening]:
        """Enter it for as long as audio is made for a listener. complete: his text is, so that gaps are the service's.

        Raises OverloadedError, which says when to try again: at once when no first audio is predicted in time, else
        when the wait was longer than that.
        """
        counted = self._args.enabled
        if counted:
            await self._let_in(priority)
        listening = Listening(self._clock)
        try:
            yield listening
        finally:
            if counted:
                self._learn(listening, complete)
                self._listeners.leave()

    @asynccontextmanager
    async def file(self, priority: int) -> AsyncIterator[None]:
        """Enter it for as long as a file is made. Raises OverloadedError when too many wait already."""
        if not self._args.enabled:
            yield
            return
        try:
            await self._files.enter(priority)
        except NoRoomError:
            raise OverloadedError("the service has no room for more files now", self._wait_s(0)) from None
        try:
            yield
        finally:
            self._files.leave()

    async def made(self, hops: AsyncGenerator[AudioHop, None]) -> AsyncGenerator[AudioHop, None]:
        """Pass on what the stages make of one utterance, and learn how fast they are; its text must be complete."""
        self._capacity.began()
        try:
            async with aclosing(hops):
                async for hop in hops:
                    self._capacity.made(len(hop.samples) / self._sample_rate)
                    self._listeners.admit()
                    yield hop
        finally:
            self._capacity.ended()

    def _learn(self, listening: Listening, complete: bool) -> None:
        self._held_s = _average(self._held_s, listening.held_s)
        if listening.first_audio_s is None:
            return
        self._first_audio_s = _average(self._first_audio_s, listening.first_audio_s)
        rate = self._capacity.rate
        if not complete or rate is None:
            return
        missed = listening.silence_s > HIDDEN_S
        if missed and listening.since < self._widened:
            # He was let in by the margin that has been found too small already.
            return
        if missed:
            self._widened = self._clock()
        # Wider than all there is would let in no fewer, and take longer to unlearn.
        most = max(rate, self._args.margin)
        change = math.exp(_MARGIN_STEP * (missed - self._args.gap_share))
        self._margin = min(max(self._margin * change, self._args.margin), most)

    async def _let_in(self, priority: int) -> None:
        most_s = self._args.max_first_audio_s
        ahead = self._listeners.ahead_of(priority)
        wait_s = 0.0 if self._listeners.opens_for(priority) else self._wait_s(ahead)
        if wait_s and wait_s + self._first_audio_s > most_s:
            raise OverloadedError(
                f"{_NO_ROOM}: first audio is predicted in {wait_s + self._first_audio_s:.1f} s, "
                f"and at most {most_s:g} s are allowed",
                wait_s,
            )
        try:
            async with asyncio.timeout(max(most_s - self._first_audio_s, 0.0)):
                await self._listeners.enter(priority)
        except (TimeoutError, NoRoomError) as error:
            why = f"none within {most_s:g} s" if isinstance(error, TimeoutError) else "too many wait already"
            raise OverloadedError(f"{_NO_ROOM}: {why}", self._wait_s(ahead)) from None

    def _serves_one_more(self, inside: int) -> bool:
        # Alone he gets all there is, whatever that is.
        return inside == 0 or inside < self.most_listeners or not self._args.enabled

    def _makes_one_more_file(self, inside: int) -> bool:
        return inside < self._args.max_files or not self._args.enabled

    def _wait_s(self, ahead: int) -> float:
        """Until one who has so many before him is let in: places come free as fast as listeners leave them."""
        return (ahead + 1) * self._held_s / self.most_listeners


def _average(before: float, latest: float) -> float:
    return latest if not before else before + _LATEST * (latest - before)
