"""Where the time to a request's first audio went: stamps taken in the stages, joined at the ingress.

Every stage measures on its own clock from the moment the task reached it, and sends only durations, so the account
holds across machines whose clocks differ. Stages pull from each other, so their times nest: what a stage waited for its
input is what the stage below took and the way between them. The parts therefore add up to the whole.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from deployments.messages import AudioHop, FirstAudio, StageTiming

Input = TypeVar("Input")

LM, FLOW, VOCODER = "lm", "flow", "vocoder"


class StageWatch:
    """Stamps of one task in one stage; started when the task arrives."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._arrived = time.monotonic()
        self._prepared = self._input = self._arrived
        self._began: float | None = None

    def prepared(self) -> None:
        """The stage is ready for its first input."""
        self._prepared = self._input = time.monotonic()

    def took_input(self) -> None:
        """The input of the next hop has come."""
        self._input = time.monotonic()
        self._began = None

    def began(self) -> None:
        """Work on that input has begun; only the first call for an input counts. May be called from any thread."""
        if self._began is None:
            self._began = time.monotonic()

    async def inputs(self, arriving: AsyncIterator[Input]) -> AsyncIterator[Input]:
        """Pass on what arrives; the first of it is the stage's input."""
        first = True
        async for item in arriving:
            if first:
                self.took_input()
                first = False
            yield item

    def timing(self) -> StageTiming:
        """Of a hop that leaves now."""
        left = time.monotonic()
        began = left if self._began is None else self._began
        stamps = (self._prepared, self._input, began, left)
        return StageTiming(self._stage, *(stamp - self._arrived for stamp in stamps))


class RequestWatch:
    """Stamps of one request at the ingress, and the account of its first audio."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._received = time.monotonic()
        self._queue_s = 0.0
        self._voice_s = 0.0
        self._opened: float | None = None
        self._heard: float | None = None
        self._timings: tuple[StageTiming, ...] = ()

    @property
    def request_id(self) -> str:
        return self._request_id

    def admitted(self) -> None:
        """The call is served from here on."""
        self._queue_s = time.monotonic() - self._received

    def voice_ready(self) -> None:
        self._voice_s = time.monotonic() - self._received - self._queue_s

    async def listen(self, hops: AsyncGenerator[AudioHop, None]) -> AsyncGenerator[AudioHop, None]:
        """Pass on an utterance's hops; the first of all that holds samples is the one that counts."""
        if self._opened is None:
            self._opened = time.monotonic()
        async with aclosing(hops):
            async for hop in hops:
                if self._heard is None and len(hop.samples):
                    self._heard = time.monotonic()
                    self._timings = hop.timings
                yield hop

    def first_audio(self) -> FirstAudio:
        """The account, for audio that is handed on now."""
        total_s = time.monotonic() - self._received
        opened, heard = self._opened or self._received, self._heard or self._received
        parts = list(_parts(self._timings, heard - opened))
        known = (("queue", self._queue_s), ("voice", self._voice_s), *parts)
        ingress_s = total_s - sum(seconds for _, seconds in known)
        return FirstAudio(self._request_id, (("ingress", ingress_s), *known))


def _parts(timings: tuple[StageTiming, ...], chain_s: float) -> list[tuple[str, float]]:
    """`chain_s`: from opening the topmost stage to its first audio. What no stage accounts for went between them, or
    into a first attempt that was lost with its stage."""
    parts: list[tuple[str, float]] = []
    below_s = 0.0
    for timing in timings:
        name = timing.stage
        if name == LM:
            parts.append(("text-wait", timing.input_s))
        else:
            # What the stage still had to prepare when its input was there already, mostly the voice's own chunks.
            parts.append((f"{name}-prepare", max(timing.prepared_s - below_s, 0.0)))
        parts += [(f"{name}-wait", timing.began_s - timing.input_s), (name, timing.left_s - timing.began_s)]
        below_s = timing.left_s
    parts.append(("hops", chain_s - sum(seconds for _, seconds in parts)))
    return parts
