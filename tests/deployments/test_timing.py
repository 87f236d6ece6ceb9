"""The account of a first audio: what each part is, and that the parts are the whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import numpy as np
import pytest

from deployments import timing
from deployments.messages import AudioHop, StageTiming
from deployments.timing import FLOW, LM, VOCODER, RequestWatch, StageWatch


class Clock:
    """Stands in for the clock, so that times are exact."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def audio(samples: int, timings: tuple[StageTiming, ...] = ()) -> AudioHop:
    return AudioHop(np.zeros(samples, np.float32), (), last=False, timings=timings)


async def parts_of(
    clock: Clock,
    timings: tuple[StageTiming, ...],
    chain_s: float,
    *,
    queue_s: float = 0.0,
    voice_s: float = 0.0,
    silent_hops: int = 0,
) -> dict[str, float]:
    watch = RequestWatch("id")
    clock.now += queue_s
    watch.admitted()
    clock.now += voice_s
    watch.voice_ready()
    clock.now += 0.002

    async def hops() -> AsyncGenerator[AudioHop, None]:
        for _ in range(silent_hops):
            yield audio(0)
        clock.now += chain_s
        yield audio(480, timings)
        clock.now += 5.0
        yield audio(480)

    async for hop in watch.listen(hops()):
        if len(hop.samples):
            break
    clock.now += 0.001
    found = watch.first_audio()
    assert found.request_id == "id"
    assert found.total_s == pytest.approx(queue_s + voice_s + 0.003 + chain_s)
    return dict(found.parts)


async def test_the_parts_are_named_and_add_up(clock: Clock) -> None:
    timings = (
        StageTiming(LM, 0.0, 0.0, 0.05, 0.30),
        StageTiming(FLOW, 0.10, 0.31, 0.36, 0.50),
        StageTiming(VOCODER, 0.0, 0.52, 0.53, 0.60),
    )
    parts = await parts_of(clock, timings, chain_s=0.63, queue_s=0.4, voice_s=0.2, silent_hops=2)
    assert parts == pytest.approx(
        {
            "ingress": 0.003,
            "queue": 0.4,
            "voice": 0.2,
            "text-wait": 0.0,
            "lm-wait": 0.05,
            "lm": 0.25,
            "flow-prepare": 0.0,
            "flow-wait": 0.05,
            "flow": 0.14,
            "vocoder-prepare": 0.0,
            "vocoder-wait": 0.01,
            "vocoder": 0.07,
            "hops": 0.06,
        }
    )


async def test_a_prompt_that_takes_longer_than_the_first_tokens_is_the_flows_own(clock: Clock) -> None:
    timings = (StageTiming(LM, 0.0, 0.0, 0.05, 0.2), StageTiming(FLOW, 0.9, 0.9, 0.9, 1.0))
    parts = await parts_of(clock, timings, chain_s=1.05)
    assert parts["flow-prepare"] == pytest.approx(0.7)
    assert parts["hops"] == pytest.approx(0.05)


async def test_waiting_for_words_is_not_the_language_models(clock: Clock) -> None:
    parts = await parts_of(clock, (StageTiming(LM, 0.0, 0.4, 0.5, 0.7),), chain_s=0.7)
    assert (parts["text-wait"], parts["lm-wait"], parts["lm"]) == pytest.approx((0.4, 0.1, 0.2))


async def test_a_first_attempt_that_was_lost_is_no_stages_time(clock: Clock) -> None:
    parts = await parts_of(clock, (StageTiming(LM, 0.0, 0.0, 0.1, 0.2),), chain_s=3.2)
    assert parts["hops"] == pytest.approx(3.0)


async def test_audio_without_an_account_is_all_the_chains(clock: Clock) -> None:
    assert (await parts_of(clock, (), chain_s=0.5))["hops"] == pytest.approx(0.5)


def test_stamps_of_a_stage_are_of_the_hop_that_leaves(clock: Clock) -> None:
    watch = StageWatch(FLOW)
    clock.now += 0.1
    watch.prepared()
    clock.now += 0.1
    watch.took_input()
    clock.now += 0.1
    watch.began()
    clock.now += 0.1
    watch.began()
    first = watch.timing()
    assert (first.prepared_s, first.input_s, first.began_s, first.left_s) == pytest.approx((0.1, 0.2, 0.3, 0.4))
    watch.took_input()
    clock.now += 0.2
    watch.began()
    second = watch.timing()
    assert (second.input_s, second.began_s, second.left_s) == pytest.approx((0.4, 0.6, 0.6))


def test_work_that_left_no_stamp_is_all_waiting(clock: Clock) -> None:
    watch = StageWatch(FLOW)
    clock.now += 0.5
    assert watch.timing().began_s == pytest.approx(0.5)


async def test_the_first_words_are_the_input_of_a_growing_text(clock: Clock) -> None:
    watch = StageWatch(LM)

    async def words() -> AsyncIterator[int]:
        for number in range(3):
            clock.now += 0.2
            yield number

    assert [word async for word in watch.inputs(words())] == [0, 1, 2]
    assert watch.timing().input_s == pytest.approx(0.2)


async def test_leaving_the_audio_closes_its_source() -> None:
    closed = False

    async def hops() -> AsyncGenerator[AudioHop, None]:
        nonlocal closed
        try:
            while True:
                yield audio(480)
        finally:
            closed = True

    listening = RequestWatch("id").listen(hops())
    await anext(listening)
    await listening.aclose()
    assert closed
