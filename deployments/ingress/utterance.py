"""One utterance from the ingress's side: its token log, and its replay when a stage breaks.

The log is the only state needed to go on elsewhere: the language model continues after the tokens that are known,
the flow recomputes its caches from them, source noise is a function of absolute position, and samples already sent are
neither decoded nor sent again. So a replayed utterance goes on where it stopped, up to float rounding. An utterance
whose text is still being written is made again from its start instead, with the same seed: its tokens depend on its
text alone, and the mailbox has kept that.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from deployments.args import PlaybackArgs
from deployments.messages import AudioHop, StreamCancelledError, StreamCutError, UtteranceTask
from deployments.stage import hops_of

logger = logging.getLogger("ray.serve")


class StageStalledError(RuntimeError):
    """No audio came within the time allowed."""


class TokenLog:
    """Tokens and samples of one utterance that have arrived, across replays."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.samples = 0

    def accept(self, hop: AudioHop, ids_before: int, samples_before: int) -> AudioHop:
        """Note a hop that starts at the given counts within its attempt; returns it without what was known."""
        known_ids = min(max(len(self.ids) - ids_before, 0), len(hop.ids))
        known_samples = min(max(self.samples - samples_before, 0), len(hop.samples))
        self.ids.extend(hop.ids[known_ids:])
        self.samples += len(hop.samples) - known_samples
        return replace(hop, ids=hop.ids[known_ids:], samples=hop.samples[known_samples:])


async def audio_of(
    task: UtteranceTask,
    vocoder: DeploymentHandle,
    playback: PlaybackArgs,
    text_age_s: Callable[[], float] = lambda: math.inf,
    *,
    on_replay: Callable[[], None] = lambda: None,
) -> AsyncGenerator[AudioHop, None]:
    """Audio hops of one utterance to its end, replayed after the death of a stage or when it falls silent amid speech.

    text_age_s: seconds since more of its text arrived; a text that is being written excuses silence. on_replay: called
    at each replay.
    Raises StageStalledError when no first audio comes in time, and what broke last when `max_replays` in a row have
    brought no more sound. The first of these comes at once, the others after growing pauses: the stages of a lost node
    go one after another, and each takes another replay with it.
    """
    log = TokenLog()
    failures = 0
    while True:
        # What a replay leaves out is counted as having come.
        ids_before, sent = 0, log.samples
        samples_before = sent
        try:
            history = () if task.text is not None else tuple(log.ids)
            replay = replace(task, history=history, sent_samples=sent)
            silence_s = playback.silence_timeout_s
            async with hops_of(AudioHop, vocoder, "synthesize", replay, silence_s=silence_s) as hops:
                while True:
                    limit = playback.stall_timeout_s if log.samples else playback.first_audio_timeout_s
                    hop = await _within(anext(hops), limit, text_age_s)
                    fresh = log.accept(hop, ids_before, samples_before)
                    ids_before += len(hop.ids)
                    samples_before += len(hop.samples)
                    yield fresh
                    if hop.last:
                        # One step further tells the stream that it was read to its end.
                        await anext(hops, None)
                        return
        except (RayActorError, StreamCutError, StageStalledError) as error:
            failures = 1 if log.samples > sent else failures + 1
            # When a listener leaves, Serve cancels the stages' streams before whoever waits here is cancelled himself.
            pauses = failures - (0 if isinstance(error, StreamCancelledError) else 1)
            # Before the first audio silence may be a queue, and asking again would lose the place in it.
            if failures > playback.max_replays or (isinstance(error, StageStalledError) and not log.samples):
                raise
            on_replay()
            logger.warning(
                "request %s segment %d: replaying from token %d, sample %d after %s",
                task.request_id,
                task.utterance.index,
                len(log.ids),
                log.samples,
                type(error).__name__,
            )
        if pauses:
            await asyncio.sleep(playback.replay_pause_s * 2 ** (pauses - 1))


async def _within(hop: Awaitable[AudioHop], limit_s: float, text_age_s: Callable[[], float]) -> AudioHop:
    """`hop` if it comes within `limit_s` of the call and of the last text; raises StageStalledError."""
    waiting = asyncio.ensure_future(hop)
    try:
        left_s = limit_s
        while left_s > 0:
            done, _ = await asyncio.wait({waiting}, timeout=left_s)
            if waiting.cancelled():
                raise StreamCancelledError("the other side cancelled the stream")
            if done:
                return waiting.result()
            left_s = limit_s - text_age_s()
        raise StageStalledError(f"no audio within {limit_s:g} s")
    finally:
        if not waiting.done():
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
