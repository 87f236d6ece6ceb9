"""An utterance whose stage breaks: made again from the token log, and nothing is sent or decoded twice."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np
import pytest

from deployments.args import PlaybackArgs
from deployments.ingress.utterance import audio_of
from deployments.messages import AudioHop, StreamCutError, UtteranceTask
from deployments.text_source import TextSource
from tests.deployments.test_playback import utterance

AUDIO = np.arange(100, dtype=np.float32)
TOKENS = 10
PER_TOKEN = len(AUDIO) // TOKENS


class BreakingVocoder:
    """Stands in for the handle of a Vocoder: a real one breaks off when its process is killed, here at a set hop.

    Gives a hop per token, leaves out the samples that its task says were sent, and breaks off in its first calls
    after so many hops.
    """

    def __init__(self, *breaks_after: int) -> None:
        self._breaks_after = iter(breaks_after)
        self.tasks: list[UtteranceTask] = []

    def options(self, **_options: object) -> BreakingVocoder:
        return self

    def remote(self, task: UtteranceTask) -> Hops:
        self.tasks.append(task)
        return Hops(task.sent_samples, next(self._breaks_after, TOKENS))


class Hops:
    def __init__(self, skipped: int, count: int) -> None:
        self._skipped, self._count = skipped, count

    async def __aiter__(self) -> AsyncIterator[AudioHop]:
        for token in range(self._count):
            begin, end = token * PER_TOKEN, (token + 1) * PER_TOKEN
            yield AudioHop(AUDIO[max(begin, self._skipped) : end], (token,), last=token == TOKENS - 1)

    def cancel(self) -> None:
        """Nothing runs."""


async def heard(vocoder: BreakingVocoder, task: UtteranceTask) -> list[AudioHop]:
    return [hop async for hop in audio_of(task, vocoder, PlaybackArgs(max_replays=2))]


@pytest.mark.parametrize("breaks", [(), (4,), (0,), (7, 3), (3, 7)])
async def test_every_sample_and_token_comes_once(breaks: tuple[int, ...]) -> None:
    hops = await heard(BreakingVocoder(*breaks), UtteranceTask("request", utterance(0)))
    assert np.concatenate([hop.samples for hop in hops]).tolist() == AUDIO.tolist()
    assert [token for hop in hops for token in hop.ids] == list(range(TOKENS))
    assert [hop.last for hop in hops] == [False] * (len(hops) - 1) + [True]


async def test_a_replay_knows_the_tokens_and_what_was_sent() -> None:
    vocoder = BreakingVocoder(4, 6)
    await heard(vocoder, UtteranceTask("request", utterance(0)))
    assert [task.history for task in vocoder.tasks] == [(), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5)]
    assert [task.sent_samples for task in vocoder.tasks] == [0, 40, 60]


async def test_a_text_that_is_being_written_is_replayed_without_history_and_without_what_was_sent() -> None:
    vocoder = BreakingVocoder(4)
    hops = await heard(vocoder, UtteranceTask("request", utterance(0), text=TextSource("mailbox", "text")))
    assert [task.history for task in vocoder.tasks] == [(), ()]
    assert [task.sent_samples for task in vocoder.tasks] == [0, 40]
    assert np.concatenate([hop.samples for hop in hops]).tolist() == AUDIO.tolist()


async def test_replays_are_told() -> None:
    replays: list[int] = []
    task = UtteranceTask("request", utterance(0))
    told = audio_of(task, BreakingVocoder(4, 6), PlaybackArgs(), on_replay=lambda: replays.append(1))
    assert [hop.last async for hop in told][-1]
    assert len(replays) == 2


async def test_a_stage_that_breaks_too_often_is_an_error() -> None:
    with pytest.raises(StreamCutError):
        await heard(BreakingVocoder(2, 2, 2), UtteranceTask("request", utterance(0)))
