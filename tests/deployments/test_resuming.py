"""An answer that was cut is asked for again, from the sample where it was cut; nothing is computed without need."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.args import PlaybackArgs
from deployments.ingress.playback import Pace, SegmentPlayer
from deployments.messages import ResumePoint, SpeakCall, SpeechChunk, seeded
from deployments.resuming import Resuming
from tests.deployments.test_playback import RATE, Pipeline, played


def player(pipeline: Pipeline, resume: ResumePoint, *, realtime: bool = False) -> SegmentPlayer:
    async def following() -> object:
        while (spoken := await pipeline.next_utterance()) is not None and spoken.index < resume.segment:
            pass
        return spoken

    return SegmentPlayer(
        following,  # type: ignore[arg-type]
        pipeline.start,
        Pace.listener(PlaybackArgs()) if realtime else Pace.file(PlaybackArgs()),
        sample_rate=RATE,
        pause_s=lambda _segment: 0.25,
        resume=resume,
    )


def joined(chunks: list[SpeechChunk]) -> list[float]:
    found: list[float] = np.concatenate([chunk.samples for chunk in chunks]).tolist()
    return found


@pytest.mark.parametrize("heard", range(10))
async def test_wherever_an_answer_is_cut_the_rest_fits_without_a_seam(heard: int) -> None:
    """Cut behind each of its chunks, of which some are pauses; once more within what came after the first cut."""
    whole = await played(player(Pipeline(3), ResumePoint()))
    assert len(whole) == 9
    resuming = Resuming(SpeakCall("text", seed=1))
    for chunk in whole[:heard]:
        resuming.heard(chunk)
    again = Pipeline(3)
    middle = (await played(player(again, resuming.rest.resume)))[:1]
    for chunk in middle:
        resuming.heard(chunk)
    rest = await played(player(Pipeline(3), resuming.rest.resume))
    assert joined([*whole[:heard], *middle, *rest]) == joined(whole)
    assert rest[-1].last
    begun = whole[min(heard, 8) - 1].segment if heard else 0
    assert {index for _, index in again.events} == set(range(begun, 3))


@pytest.mark.parametrize("samples", [0, 1, 1999, 2000, 2100, 2250, 4000, 6500, 9000])
async def test_a_caller_who_knows_only_how_much_was_heard_gets_the_rest(samples: int) -> None:
    whole = joined(await played(player(Pipeline(3), ResumePoint())))
    rest = await played(player(Pipeline(3), ResumePoint(0, samples)))
    assert joined(rest) == whole[samples:]
    assert rest[-1].last


async def test_what_was_heard_does_not_count_as_ahead_of_the_listener() -> None:
    """Else a listener would wait as long again for the rest as the part that was heard lasts."""
    pipeline = Pipeline(3, hop_s=60.0)
    play = player(pipeline, ResumePoint(0, 120 * RATE), realtime=True).play()
    assert (await anext(play)).segment == 1
    await play.aclose()


def test_attempts_without_sound_pause_longer_and_longer_and_end() -> None:
    resuming = Resuming(SpeakCall("text", seed=1))
    assert [resuming.pause_s() for _ in range(5)] == [0.0, 0.5, 1.0, 2.0, None]
    resuming.heard(SpeechChunk(np.zeros(0, np.float32), 0))
    assert resuming.pause_s() is None
    resuming.heard(SpeechChunk(np.ones(5, np.float32), 0))
    assert resuming.pause_s() == 0.0


def test_a_text_that_was_lost_cannot_be_told_again() -> None:
    resuming = Resuming(None)
    resuming.heard(SpeechChunk(np.ones(5, np.float32), 0))
    assert resuming.pause_s() is None


def test_a_call_gets_a_seed_once() -> None:
    call = seeded(SpeakCall("text"))
    assert call.seed is not None
    assert seeded(call) is call
    assert seeded(SpeakCall("text")).seed != call.seed
