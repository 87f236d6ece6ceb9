"""An utterance whose stage breaks: made again from the token log, and nothing is sent or decoded twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import numpy as np
import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorUnavailableError

from deployments.args import PlaybackArgs
from deployments.ingress.utterance import StageStalledError, audio_of
from deployments.messages import AudioHop, StreamCutError, UtteranceTask
from deployments.stage import answer_of
from deployments.text_source import TextSource
from tests.deployments.test_playback import utterance

AUDIO = np.arange(100, dtype=np.float32)
TOKENS = 10
PER_TOKEN = len(AUDIO) // TOKENS
PLAYBACK = PlaybackArgs(max_replays=2, replay_pause_s=0, stall_timeout_s=0.2)


class BreakingVocoder:
    """Stands in for the handle of a Vocoder: a real one breaks off when its process is killed, here at a set hop.

    Gives a hop per token, leaves out the samples that its task says were sent, and breaks off in its first calls
    after so many hops: by ending, or by what `then` does.
    """

    def __init__(self, *breaks_after: int, then: Callable[[], Awaitable[None]] | None = None) -> None:
        self._breaks_after = iter(breaks_after)
        self._then = then
        self.tasks: list[UtteranceTask] = []

    def options(self, **_options: object) -> BreakingVocoder:
        return self

    def remote(self, task: UtteranceTask) -> Hops:
        self.tasks.append(task)
        return Hops(task.sent_samples, next(self._breaks_after, TOKENS), self._then)


class Hops:
    def __init__(self, skipped: int, count: int, then: Callable[[], Awaitable[None]] | None) -> None:
        self._skipped, self._count, self._then = skipped, count, then

    async def __aiter__(self) -> AsyncIterator[AudioHop]:
        for token in range(self._count):
            begin, end = token * PER_TOKEN, (token + 1) * PER_TOKEN
            yield AudioHop(AUDIO[max(begin, self._skipped) : end], (token,), last=token == TOKENS - 1)
        if self._count < TOKENS and self._then is not None:
            await self._then()

    def cancel(self) -> None:
        """Nothing runs."""


async def cancelled() -> None:
    raise asyncio.CancelledError


async def transport_broken() -> None:
    raise AioRpcError(StatusCode.CANCELLED, Metadata(), Metadata(), "the server goes")


async def silence() -> None:
    await asyncio.sleep(60)


async def heard(vocoder: BreakingVocoder, task: UtteranceTask) -> list[AudioHop]:
    return [hop async for hop in audio_of(task, vocoder, PLAYBACK)]


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


async def test_replays_that_bring_more_sound_are_not_counted() -> None:
    """An utterance of minutes may meet many failures; only those in a row are a sign of a request that cannot be."""
    hops = await heard(BreakingVocoder(1, 2, 3, 4, 5, 6, 7, 8, 9), UtteranceTask("request", utterance(0)))
    assert np.concatenate([hop.samples for hop in hops]).tolist() == AUDIO.tolist()


@pytest.mark.parametrize("then", [cancelled, transport_broken, silence])
async def test_whatever_way_a_stage_breaks_it_is_replayed(then: Callable[[], Awaitable[None]]) -> None:
    vocoder = BreakingVocoder(4, then=then)
    async with asyncio.timeout(30):
        hops = await heard(vocoder, UtteranceTask("request", utterance(0)))
    assert np.concatenate([hop.samples for hop in hops]).tolist() == AUDIO.tolist()
    assert [task.sent_samples for task in vocoder.tasks] == [0, 40]


async def test_no_first_audio_in_time_is_an_error_at_once() -> None:
    vocoder = BreakingVocoder(0, 0, then=silence)
    task, playback = UtteranceTask("request", utterance(0)), PlaybackArgs(first_audio_timeout_s=0.2)
    with pytest.raises(StageStalledError):
        await anext(audio_of(task, vocoder, playback))
    assert len(vocoder.tasks) == 1


class LosingEncoder(BreakingVocoder):
    """Stands in for the handle of a VoiceEncoder whose replicas are killed while they answer, a few times."""

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.losses = losses

    def remote(self, audio: bytes) -> Answer:  # type: ignore[override]
        self.losses -= 1
        return Answer(audio, self.lose if self.losses >= 0 else None)

    async def lose(self) -> None:
        raise ActorUnavailableError("lost", None)


class Answer:
    def __init__(self, audio: bytes, lose: Callable[[], Awaitable[None]] | None) -> None:
        self._audio, self._lose = audio, lose

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._lose is not None:
            await self._lose()
        yield self._audio

    def cancel(self) -> None:
        """Nothing runs."""


async def test_a_lost_voice_encoder_is_asked_again() -> None:
    assert await answer_of(LosingEncoder(2), "encode", b"audio", playback=PLAYBACK) == b"audio"
    with pytest.raises(StreamCutError):
        await answer_of(LosingEncoder(3), "encode", b"audio", playback=PLAYBACK)


async def test_replays_without_sound_come_after_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of a lost node go one after another; replays at once were used up before the last had gone."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    playback = PlaybackArgs(max_replays=4, replay_pause_s=0.5)
    with monkeypatch.context() as patched:
        patched.setattr("deployments.ingress.utterance.asyncio.sleep", sleep)
        hops = audio_of(UtteranceTask("request", utterance(0)), BreakingVocoder(3, 3, 3, 3, 5, 5), playback)
        samples = [hop.samples async for hop in hops]
    assert np.concatenate(samples).tolist() == AUDIO.tolist()
    # The first break came after sound, and so did the fifth: both are followed by a replay at once.
    assert pauses == [0.5, 1.0, 2.0, 0.5]
