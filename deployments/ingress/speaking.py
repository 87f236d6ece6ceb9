"""From a request that was let in to the chunks of its answer: utterances planned, made by the stages, played in order.

Knows neither doors nor voices nor who calls.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from ray.serve.handle import DeploymentHandle

from cosyvoice_core.utterance import SpeechRequest, Utterance, UtterancePlanner
from deployments.args import AppArgs
from deployments.ingress.admission.admission import Admission
from deployments.ingress.playback import Pace, SegmentPlayer, Start
from deployments.ingress.request_record import RequestRecord
from deployments.ingress.script import Line, ScriptPlan, check_line
from deployments.ingress.source import ReadAhead, source_tokens
from deployments.ingress.streamed import StreamedUtterances
from deployments.ingress.utterance import audio_of
from deployments.mailbox import TextSource
from deployments.messages import AudioHop, Recording, ScriptCall, SpeakCall, SpeechChunk, UtteranceTask
from deployments.quotas.holder import Spending
from deployments.text_source import MailboxOwner, TextReader

CHARACTERS_PER_S = 15
"""A second of a recording counts as so many characters for quotas: so many are spoken in it."""


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
        voice_encoder: DeploymentHandle | None,
        sample_rate: int,
        token_rate: int,
    ) -> None:
        """`vocoder` is the stage that gives audio; admission learns how fast it comes; `texts` keeps growing texts."""
        self._vocoder = vocoder
        self._voice_encoder = voice_encoder
        self._token_rate = token_rate
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
        pause_s = args.playback.pause_s if call.pause_s is None else call.pause_s
        plan = partial(
            SegmentPlayer,
            pace=Pace.listener(args.playback) if realtime else Pace.file(args.playback),
            sample_rate=self._sample_rate,
            pause_s=lambda _segment: pause_s,
            resume=call.resume,
        )
        if isinstance(call.text, TextSource):
            return self._growing(request, record, self._pieces(call.text, spending, args), args, plan)
        if isinstance(call.text, Recording):
            return self._converted(call, request, record, spending, args, plan)
        planned = self._planner.utterances(request)
        wanted = (utterance for utterance in planned if utterance.index >= call.resume.segment)

        async def next_utterance() -> Utterance | None:
            return await asyncio.get_running_loop().run_in_executor(self._text_thread, next, wanted, None)

        return self._played(plan(next_utterance, self._start(record, args)))

    async def lines(
        self, script: ScriptCall, lines: Sequence[Line], record: RequestRecord, args: AppArgs, *, realtime: bool
    ) -> AsyncGenerator[SpeechChunk, None]:
        """All lines in order, several of them made at once. Raises InputError before any is spoken."""
        loop = asyncio.get_running_loop()
        for line in lines:
            # A job each, so that others' texts are not kept waiting by a script of thousands.
            await loop.run_in_executor(self._text_thread, check_line, line, self._planner)
        planned = ScriptPlan(script, lines, self._planner, args.playback.pause_s)
        wanted = planned.utterances()

        async def next_utterance() -> Utterance | None:
            return await loop.run_in_executor(self._text_thread, next, wanted, None)

        player = SegmentPlayer(
            next_utterance,
            self._start(record, args),
            Pace.listener(args.playback) if realtime else Pace.script(args.playback),
            sample_rate=self._sample_rate,
            pause_s=planned.pause_s,
            resume=script.resume,
        )
        async with aclosing(player.play()) as chunks:
            async for chunk in chunks:
                yield replace(chunk, line=planned.line_of(chunk.segment))

    async def _converted(
        self,
        call: SpeakCall,
        request: SpeechRequest,
        record: RequestRecord,
        spending: Spending,
        args: AppArgs,
        plan: Callable[..., SegmentPlayer],
    ) -> AsyncGenerator[SpeechChunk, None]:
        assert isinstance(call.text, Recording)
        assert self._voice_encoder is not None
        numbers = itertools.count(call.resume.segment)
        tokens = source_tokens(call.text, self._voice_encoder, args.playback, call.resume.segment)
        async with ReadAhead(tokens) as pieces:

            async def next_utterance() -> Utterance | None:
                ids = await pieces.next()
                if ids is None:
                    return None
                spending.characters += round(len(ids) / self._token_rate * CHARACTERS_PER_S)
                return self._planner.conversion(
                    ids, request.voice, seed=request.seed, speed=request.speed, index=next(numbers)
                )

            player = plan(next_utterance, self._start(record, args), ready=lambda: pieces.ready)
            async with aclosing(self._played(player)) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _start(self, record: RequestRecord, args: AppArgs) -> Start:
        def start(utterance: Utterance, lead_s: float) -> AsyncGenerator[AudioHop, None]:
            task = UtteranceTask(record.request_id, utterance, lead_s)
            return self._admission.made(self._audio_of(task, record, args))

        return start

    @staticmethod
    async def _played(player: SegmentPlayer) -> AsyncGenerator[SpeechChunk, None]:
        async with aclosing(player.play()) as chunks:
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
