"""Segments in order, the next made while one plays, nothing left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
import pytest

from cosyvoice_core.config import SamplingConfig
from cosyvoice_core.inputs import UtteranceInputs
from cosyvoice_core.utterance import Utterance
from deployments.args import PlaybackArgs
from deployments.ingress.playback import Pace, SegmentPlayer
from deployments.ingress.utterance import TokenLog
from deployments.messages import AudioHop, SpeechChunk, StreamCutError

RATE = 1000
NO_IDS = np.zeros(0, np.int32)


def utterance(index: int) -> Utterance:
    inputs = UtteranceInputs(NO_IDS, NO_IDS, NO_IDS, NO_IDS, np.zeros((0, 80), np.float32), np.zeros(192, np.float32))
    return Utterance(index, str(index), inputs, 0, 1.0, False, SamplingConfig(), 1, 1)


class Pipeline:
    """Stands in for the stages: what is tested is order and life time, and sound would only slow it down."""

    def __init__(self, segments: int, *, hops: int = 3, hop_s: float = 1.0, fail_in: int | None = None) -> None:
        self._left = iter([utterance(index) for index in range(segments)])
        self._hops = hops
        self._samples = round(hop_s * RATE)
        self._fail_in = fail_in
        self.events: list[tuple[str, int]] = []
        self.running = 0
        self.leads: list[float] = []

    async def next_utterance(self) -> Utterance | None:
        return next(self._left, None)

    async def start(self, spoken: Utterance, lead_s: float) -> AsyncGenerator[AudioHop, None]:
        self.running += 1
        self.leads.append(lead_s)
        self.events.append(("start", spoken.index))
        try:
            for number in range(self._hops):
                await asyncio.sleep(0)
                if self._fail_in == spoken.index and number == 1:
                    raise RuntimeError("stage failed")
                samples = np.full(self._samples if number else 0, spoken.index, np.float32)
                yield AudioHop(samples, (number,), last=number == self._hops - 1)
        finally:
            self.running -= 1
            self.events.append(("end", spoken.index))

    def player(self, *, realtime: bool = False, pause_s: float = 0.0, **playback: float) -> SegmentPlayer:
        args = PlaybackArgs.model_validate(playback)
        return SegmentPlayer(
            self.next_utterance,
            self.start,
            Pace.listener(args) if realtime else Pace.file(args),
            sample_rate=RATE,
            pause_s=lambda _segment: pause_s,
        )


async def played(player: SegmentPlayer) -> list[SpeechChunk]:
    return [chunk async for chunk in player.play()]


async def test_segments_are_heard_in_order_and_the_answer_ends_with_a_mark() -> None:
    pipeline = Pipeline(4)
    chunks = await played(pipeline.player())
    heard = np.concatenate([chunk.samples for chunk in chunks])
    assert heard.tolist() == [float(index) for index in range(4) for _ in range(2 * RATE)]
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert pipeline.running == 0


async def test_the_next_segment_is_started_while_one_plays() -> None:
    pipeline = Pipeline(3)
    play = pipeline.player(look_ahead_segments=1).play()
    assert (await anext(play)).segment == 0
    assert pipeline.events == [("start", 0)]
    await anext(play)
    await asyncio.sleep(0)
    assert ("start", 1) in pipeline.events
    assert ("start", 2) not in pipeline.events
    await play.aclose()


async def test_whoever_is_cancelled_again_while_he_closes_leaves_nothing_running() -> None:
    pipeline = Pipeline(3, hops=10_000, hop_s=0.001)
    both_run, never = asyncio.Event(), asyncio.Event()

    async def listen() -> None:
        async with aclosing(pipeline.player(look_ahead_segments=1).play()) as chunks:
            async for _ in chunks:
                if pipeline.running == 2:
                    both_run.set()
                    await never.wait()

    listening = asyncio.create_task(listen())
    await both_run.wait()
    for _ in range(20):
        listening.cancel()
        await asyncio.sleep(0)
    assert pipeline.running == 0


async def test_leaving_between_two_segments_stops_the_next_one() -> None:
    pipeline = Pipeline(2)
    play = pipeline.player(look_ahead_segments=1, pause_s=1.0).play()
    async for chunk in play:
        if not chunk.samples.any() and chunk.segment == 1:
            break
    await play.aclose()
    assert pipeline.running == 0


async def test_a_segment_made_ahead_says_how_long_it_is_not_needed() -> None:
    pipeline = Pipeline(2)
    await played(pipeline.player(realtime=True))
    assert pipeline.leads[0] == 0.0
    assert 0.5 < pipeline.leads[1] <= 1.0


async def test_a_file_is_not_needed_as_soon_as_what_somebody_hears() -> None:
    pipeline = Pipeline(2)
    await played(pipeline.player(file_lead_s=40.0))
    assert pipeline.leads[0] == 40.0
    assert 40.5 < pipeline.leads[1] <= 41.0


async def test_pause_stands_between_segments_only() -> None:
    chunks = await played(Pipeline(2).player(pause_s=0.5))
    total = sum(len(chunk.samples) for chunk in chunks)
    assert total == 2 * 2 * RATE + RATE // 2
    assert np.concatenate([chunk.samples for chunk in chunks])[-1] == 1.0


async def test_a_real_time_listener_is_not_overrun() -> None:
    pipeline = Pipeline(50, hop_s=0.1)
    play = pipeline.player(realtime=True, max_run_ahead_s=0.3).play()
    began = asyncio.get_running_loop().time()
    heard = 0.0
    async for chunk in play:
        heard += len(chunk.samples) / RATE
        # never further ahead than the bound and what two segments hold
        assert heard - (asyncio.get_running_loop().time() - began) < 0.3 + 2 * 0.2 + 0.1
        if heard > 2.0:
            break
    await play.aclose()
    assert pipeline.running == 0
    assert sum(kind == "start" for kind, _ in pipeline.events) < 15


async def test_leaving_stops_every_segment_that_was_started() -> None:
    pipeline = Pipeline(5)
    play = pipeline.player(look_ahead_segments=3).play()
    await anext(play)
    await anext(play)
    await play.aclose()
    assert pipeline.running == 0


async def test_a_failing_segment_is_heard_up_to_its_failure_and_then_raises() -> None:
    pipeline = Pipeline(3, fail_in=1)
    play = pipeline.player().play()
    assert [(await anext(play)).segment for _ in range(2)] == [0, 0]
    with pytest.raises(RuntimeError, match="stage failed"):
        await anext(play)
    assert pipeline.running == 0


def hop(samples: list[float], ids: list[int], last: bool = False) -> AudioHop:
    return AudioHop(np.asarray(samples, np.float32), tuple(ids), last)


def test_a_replay_gives_only_what_was_not_heard() -> None:
    log = TokenLog()
    log.accept(hop([1, 2, 3], [10, 11]), 0, 0)
    assert log.ids == [10, 11]
    again = log.accept(hop([1, 2], [10, 11, 12]), 0, 0)
    assert (again.samples.tolist(), again.ids) == ([], (12,))
    rest = log.accept(hop([3, 4, 5], [13], last=True), 3, 2)
    assert (rest.samples.tolist(), rest.ids, rest.last) == ([4, 5], (13,), True)
    assert log.ids == [10, 11, 12, 13]
    assert log.samples == 5


async def test_a_segment_that_is_cancelled_from_below_is_an_error_and_not_an_endless_wait() -> None:
    async def start(_spoken: Utterance, _lead_s: float) -> AsyncGenerator[AudioHop, None]:
        raise asyncio.CancelledError
        yield

    pipeline = Pipeline(1)
    player = SegmentPlayer(
        pipeline.next_utterance, start, Pace.file(PlaybackArgs()), sample_rate=RATE, pause_s=lambda _segment: 0.0
    )
    with pytest.raises(StreamCutError):
        async with asyncio.timeout(10):
            await anext(player.play())
