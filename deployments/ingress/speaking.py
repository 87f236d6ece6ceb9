"""From a request that was let in to the chunks of its answer: utterances planned, made by the stages, played in order.

Knows neither doors nor voices nor who calls.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from functools import partial

from ray.serve.handle import DeploymentHandle

from cosyvoice_core.utterance import SpeechRequest, Utterance, UtterancePlanner
from deployments.args import AppArgs
from deployments.ingress.admission.admission import Admission
from deployments.ingress.playback import SegmentPlayer
from deployments.ingress.request_record import RequestRecord
from deployments.ingress.streamed import StreamedUtterances
from deployments.ingress.utterance import audio_of
from deployments.mailbox import TextSource
from deployments.messages import AudioHop, SpeakCall, SpeechChunk, UtteranceTask
from deployments.quotas.holder import Spending
from deployments.text_source import MailboxOwner, TextReader


class Speaker:
    """Speaks through the stages."""

    def __init__(
        self,
        vocoder: DeploymentHandle,
        planner: UtterancePlanner,
        text_thread: ThreadPoolExecutor,
        admission: Admission,
        texts: MailboxOwner | None,
        reader: TextReader,
        sample_rate: int,
    ) -> None:
        """`vocoder` is the stage that gives audio; admission learns how fast it comes; `texts` keeps growing texts."""
        self._vocoder = vocoder
        self._planner = planner
        self._text_thread = text_thread
        self._admission = admission
        self._texts = texts
        self._reader = reader
        self._sample_rate = sample_rate

    def chunks(
        self,
        call: SpeakCall,
        request: SpeechRequest,
        record: RequestRecord,
        spending: Spending,
        args: AppArgs,
        *,
        realtime: bool,
    ) -> AsyncGenerator[SpeechChunk, None]:
        """The answer in order; closing it stops all stages. realtime: somebody listens while it is made."""
        plan = partial(
            SegmentPlayer,
            playback=args.playback,
            sample_rate=self._sample_rate,
            realtime=realtime,
            pause_s=args.playback.pause_s if call.pause_s is None else call.pause_s,
            resume=call.resume,
        )
        if isinstance(call.text, str):
            planned = self._planner.utterances(request)
            wanted = (utterance for utterance in planned if utterance.index >= call.resume.segment)
            return self._complete(wanted, record, args, plan)
        return self._growing(request, record, self._pieces(call.text, spending, args), args, plan)

    async def _complete(
        self, utterances: Iterator[Utterance], record: RequestRecord, args: AppArgs, plan: Callable[..., SegmentPlayer]
    ) -> AsyncGenerator[SpeechChunk, None]:
        async def next_utterance() -> Utterance | None:
            return await asyncio.get_running_loop().run_in_executor(self._text_thread, next, utterances, None)

        def start(utterance: Utterance, lead_s: float) -> AsyncGenerator[AudioHop, None]:
            task = UtteranceTask(record.request_id, utterance, lead_s)
            return self._admission.made(self._audio_of(task, record, args))

        async with aclosing(plan(next_utterance, start).play()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _growing(
        self,
        request: SpeechRequest,
        record: RequestRecord,
        pieces: AsyncIterator[str],
        args: AppArgs,
        plan: Callable[..., SegmentPlayer],
    ) -> AsyncGenerator[SpeechChunk, None]:
        assert self._texts is not None
        make = partial(self._planner.streamed_utterance, request)
        make(0)

        async with StreamedUtterances(
            pieces, self._planner.streamed(request), make, self._texts, self._text_thread, args.limits.max_text_chars
        ) as utterances:

            def start(
                utterance: Utterance, lead_s: float, source: TextSource, text_age_s: Callable[[], float]
            ) -> AsyncGenerator[AudioHop, None]:
                task = UtteranceTask(record.request_id, utterance, lead_s, text=source)
                hops = self._audio_of(task, record, args, text_age_s)
                # How fast it is made says something of the stages only where none of it waits for text.
                return self._admission.made(hops) if utterances.complete(utterance) else hops

            player = plan(utterances.next_utterance, partial(utterances.audio, start), ready=lambda: utterances.ready)
            async with aclosing(player.play()) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _audio_of(
        self,
        task: UtteranceTask,
        record: RequestRecord,
        args: AppArgs,
        text_age_s: Callable[[], float] = lambda: math.inf,
    ) -> AsyncGenerator[AudioHop, None]:
        hops = audio_of(task, self._vocoder, args.playback, text_age_s, on_replay=record.replayed)
        return record.watch.listen(hops)

    async def _pieces(self, source: TextSource, spending: Spending, args: AppArgs) -> AsyncIterator[str]:
        async for piece in self._reader.pieces(source, args.lm.text_idle_timeout_s):
            assert isinstance(piece, str)
            spending.characters += len(piece)
            yield piece
