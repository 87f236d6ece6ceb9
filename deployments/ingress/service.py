"""What every door calls: a request in the service's terms in, audio chunks out. Knows no HTTP.

Holds the text front end, the saved voices and the handles of the stages; checks all limits before any stage works.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial

import numpy as np
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.errors import InputError
from cosyvoice_core.inputs import Mode, VoicePrompt
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.utterance import MAX_SEED, SpeechRequest, Utterance, UtterancePlanner
from cosyvoice_core.voice.encoder import EncodedVoice
from cosyvoice_core.voice.saved import load_saved_voices
from deployments.args import AppArgs
from deployments.ingress.admission.admission import Admission, Listening
from deployments.ingress.callers import ANYONE
from deployments.ingress.checks import check_text
from deployments.ingress.playback import SegmentPlayer
from deployments.ingress.readiness import StageStates, replicas_of_this_application
from deployments.ingress.request_record import RequestRecord, delivery_of
from deployments.ingress.streamed import StreamedUtterances
from deployments.ingress.utterance import audio_of
from deployments.ingress.voices import VoiceRegistry
from deployments.mailbox import TextSource
from deployments.messages import AudioHop, FirstAudio, SpeakCall, SpeechChunk, StageInfo, UtteranceTask
from deployments.metrics import ListenerMetrics
from deployments.quotas.holder import QuotaHolder, Spending
from deployments.stage import answer_of
from deployments.text_source import MailboxOwner, TextReader
from deployments.timing import RequestWatch

_INFO_TIMEOUT_S = 2.0
_NO_VOICE = VoicePrompt(np.zeros(0, np.float32))
"""Stands in a request until its voice is known."""


class SpeechService:
    """The service as seen by its doors."""

    def __init__(
        self,
        args: AppArgs,
        vocoder: DeploymentHandle,
        stages: dict[str, DeploymentHandle],
        texts: MailboxOwner | None = None,
        quotas: QuotaHolder | None = None,
    ) -> None:
        """`stages` are all inner deployments by name, `vocoder` the one that gives audio; `texts` keeps texts that
        are still being written, which cannot be spoken without; `quotas` are counted here alone if not given."""
        directory = CheckpointDirectory(resolve_model(args.model_source(), progress=False))
        config = read_model_config(directory.path)
        tokenizer = Tokenizer.from_directory(directory.tokenizer)
        text = TextFrontEnd(tokenizer, args.text_profile, Lexicon.from_mapping(args.lexicon), args.split.limits())
        saved = directory.saved_voices
        voices = load_saved_voices(saved, tokenizer.encode, flow=config.flow) if saved else {}
        self.args = args
        self.config_problem = ""
        self.sample_rate = config.sample_rate
        self.token_rate = config.token_rate
        self._tokenizer = tokenizer
        self.voices = VoiceRegistry(voices, config.token_rate)
        self._text = text
        self._planner = UtterancePlanner(
            text, config.lm, args.streamed.limits(), args.hops.alignment(config.flow.chunk_tokens)
        )
        self._sampling = config.lm.sampling
        self._admission = Admission(args.admission, config.sample_rate)
        self.metrics = ListenerMetrics()
        self._states = StageStates(tuple(stages), replicas_of_this_application)
        self._quotas = quotas or QuotaHolder()
        self._texts = texts
        self._reader = TextReader()
        self._vocoder = vocoder
        self._stages = stages
        # Text is normalised and tokenised off the event loop; one thread, as the number reader is not reentrant.
        self._text_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="text")

    def reconfigure(self, args: AppArgs) -> None:
        """Other arguments for calls that come from now on; `deployments.live_args` names those that can change."""
        self.args = args
        self._text.lexicon = Lexicon.from_mapping(args.lexicon)
        self._admission.reconfigure(args.admission)

    @property
    def listeners(self) -> int:
        """Calls that are admitted and not ended, but for files."""
        return self._admission.listeners

    async def text_tokens(self, text: str) -> int:
        """Of a text as it was given, for the account of what was used."""
        ids = await asyncio.get_running_loop().run_in_executor(self._text_thread, self._tokenizer.encode, text)
        return len(ids)

    @property
    def waiting(self) -> int:
        """Calls that are not admitted yet."""
        return self._admission.waiting

    def request_of(self, call: SpeakCall, *, streamed: bool) -> SpeechRequest:
        """The request but for its voice. Raises InputError for whatever can be told before any stage works."""
        limits = self.args.limits
        check_text(call, limits, streamed=streamed)
        if len(call.instructions) > limits.max_instruction_chars:
            raise InputError(
                "instructions",
                f"{len(call.instructions)} characters",
                f"at most {limits.max_instruction_chars} characters",
            )
        if len(call.lexicon) > limits.max_lexicon_entries:
            raise InputError("lexicon", f"{len(call.lexicon)} entries", f"at most {limits.max_lexicon_entries}")
        if call.voice is not None and call.prompt_audio is not None:
            raise InputError("voice", "both a voice name and prompt audio were given", "one of the two")
        if call.voice is None and call.prompt_audio is None:
            names = ", ".join(info.name for info in self.voices.infos(call.caller))
            raise InputError("voice", "no voice was given", f"prompt audio, or one of: {names}")
        if call.voice is not None:
            self.voices.get(call.voice, call.caller)
        if call.prompt_audio is None and call.prompt_text.strip():
            raise InputError("prompt_text", "was given without prompt audio", "with prompt_audio only")
        if call.prompt_audio is not None and call.mode is Mode.ZERO_SHOT and not call.prompt_text.strip():
            raise InputError(
                "prompt_text", "zero_shot needs the transcript of the prompt", "a transcript, or mode cross_lingual"
            )
        return SpeechRequest(
            text=call.text if isinstance(call.text, str) else "",
            voice=_NO_VOICE,
            mode=call.mode,
            instruction=call.instructions,
            seed=secrets.randbelow(MAX_SEED) if call.seed is None else call.seed,
            speed=call.speed,
            greedy=call.greedy,
            sampling=call.sampling.over(self._sampling),
            lexicon=Lexicon.from_mapping(call.lexicon),
        )

    async def open_text(self) -> TextSource:
        """Where a caller can write a text that is to be spoken while it is written. Raises OverloadedError."""
        assert self._texts is not None
        return await self._texts.open()

    async def write_text(self, source: TextSource, piece: str) -> None:
        """More of a text that was opened here. Raises InputError when it is too long or nobody speaks it any more."""
        assert self._texts is not None
        await self._texts.put(source, (piece,))

    async def end_text(self, source: TextSource) -> None:
        """A text that was opened here is complete."""
        assert self._texts is not None
        await self._texts.put(source, (), True)

    def drop_text(self, source: TextSource) -> None:
        """Forget a text that was opened here."""
        assert self._texts is not None
        self._texts.drop(source)

    async def speak(
        self, call: SpeakCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        """The whole answer in order; the last chunk is empty and says so.

        Raises InputError before any stage works on the text; closing the generator stops all stages.
        """
        watch = RequestWatch(request_id)
        async with AsyncExitStack() as stack:
            caller = None if call.caller == ANYONE else call.caller.name
            delivery = delivery_of(call, streamed=streamed)
            record = stack.enter_context(RequestRecord(self.metrics, watch, delivery, caller=caller))
            if isinstance(call.text, TextSource):
                # Also where nobody comes to read it: refused, or left while it waited.
                stack.callback(self._reader.drop, call.text)
            request = self.request_of(call, streamed=streamed)
            known = len(call.text) if isinstance(call.text, str) else 0
            spending = await stack.enter_async_context(self._quotas.stream(call.caller, known))
            listening: Listening | None = None
            if call.realtime and streamed:
                admitted = self._admission.listener(call.priority, complete=isinstance(call.text, str))
                listening = await stack.enter_async_context(admitted)
            else:
                await stack.enter_async_context(self._admission.file(call.priority))
            watch.admitted()
            request = replace(request, voice=await self._voice(call, request))
            watch.voice_ready()
            first_audio: FirstAudio | None = None
            told = self._chunks(call, request, record, streamed, spending)
            chunks = await stack.enter_async_context(aclosing(told))
            async for chunk in chunks:
                audio_s = len(chunk.samples) / self.sample_rate
                record.chunk(audio_s, last=chunk.last)
                if listening is not None and audio_s:
                    listening.heard(audio_s)
                if first_audio is None:
                    first_audio = watch.first_audio()
                    record.first_audio(first_audio)
                    yield replace(chunk, first_audio=first_audio)
                else:
                    yield chunk

    def _chunks(
        self, call: SpeakCall, request: SpeechRequest, record: RequestRecord, streamed: bool, spending: Spending
    ) -> AsyncGenerator[SpeechChunk, None]:
        realtime = call.realtime and streamed
        plan = partial(
            SegmentPlayer,
            playback=self.args.playback,
            sample_rate=self.sample_rate,
            realtime=realtime,
            pause_s=self.args.playback.pause_s if call.pause_s is None else call.pause_s,
            resume=call.resume,
        )
        if isinstance(call.text, str):
            planned = self._planner.utterances(request)
            wanted = (utterance for utterance in planned if utterance.index >= call.resume.segment)
            return self._speak_complete(wanted, record, plan)
        return self._speak_growing(request, record, self._pieces(call.text, spending), plan)

    async def _speak_complete(
        self, utterances: Iterator[Utterance], record: RequestRecord, plan: Callable[..., SegmentPlayer]
    ) -> AsyncGenerator[SpeechChunk, None]:
        async def next_utterance() -> Utterance | None:
            return await asyncio.get_running_loop().run_in_executor(self._text_thread, next, utterances, None)

        def start(utterance: Utterance, lead_s: float) -> AsyncGenerator[AudioHop, None]:
            task = UtteranceTask(record.request_id, utterance, lead_s)
            return self._admission.made(self._audio_of(task, record))

        async with aclosing(plan(next_utterance, start).play()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _speak_growing(
        self,
        request: SpeechRequest,
        record: RequestRecord,
        pieces: AsyncIterator[str],
        plan: Callable[..., SegmentPlayer],
    ) -> AsyncGenerator[SpeechChunk, None]:
        assert self._texts is not None
        make = partial(self._planner.streamed_utterance, request)
        make(0)

        async with StreamedUtterances(
            pieces,
            self._planner.streamed(request),
            make,
            self._texts,
            self._text_thread,
            self.args.limits.max_text_chars,
        ) as utterances:

            def start(
                utterance: Utterance, lead_s: float, source: TextSource, text_age_s: Callable[[], float]
            ) -> AsyncGenerator[AudioHop, None]:
                task = UtteranceTask(record.request_id, utterance, lead_s, text=source)
                hops = self._audio_of(task, record, text_age_s)
                # How fast it is made says something of the stages only where none of it waits for text.
                return self._admission.made(hops) if utterances.complete(utterance) else hops

            player = plan(utterances.next_utterance, partial(utterances.audio, start), ready=lambda: utterances.ready)
            async with aclosing(player.play()) as chunks:
                async for chunk in chunks:
                    yield chunk

    def _audio_of(
        self, task: UtteranceTask, record: RequestRecord, text_age_s: Callable[[], float] = lambda: math.inf
    ) -> AsyncGenerator[AudioHop, None]:
        hops = audio_of(task, self._vocoder, self.args.playback, text_age_s, on_replay=record.replayed)
        return record.watch.listen(hops)

    async def _pieces(self, source: TextSource, spending: Spending) -> AsyncIterator[str]:
        async for piece in self._reader.pieces(source, self.args.lm.text_idle_timeout_s):
            assert isinstance(piece, str)
            spending.characters += len(piece)
            yield piece

    async def _voice(self, call: SpeakCall, request: SpeechRequest) -> VoicePrompt:
        if call.prompt_audio is None:
            assert call.voice is not None
            return self.voices.get(call.voice, call.caller)
        loop = asyncio.get_running_loop()
        if isinstance(call.text, str):
            # A text without words is not worth the models that read a voice.
            await loop.run_in_executor(self._text_thread, partial(self._planner.check_text, request))
        encoder, playback = self._stages["VoiceEncoder"], self.args.playback
        encoded: EncodedVoice = await answer_of(encoder, "encode", call.prompt_audio, playback=playback)
        if not call.prompt_text.strip():
            return encoded.prompt
        transcript, ids = await loop.run_in_executor(
            self._text_thread, partial(self._planner.transcript, call.prompt_text)
        )
        return replace(encoded.prompt, transcript=transcript, transcript_ids=np.asarray(ids, np.int32))

    async def stage_infos(self) -> dict[str, StageInfo | None]:
        """What each stage says of itself; None where none answers in time."""

        async def ask(handle: DeploymentHandle) -> StageInfo | None:
            try:
                async with asyncio.timeout(_INFO_TIMEOUT_S):
                    info: StageInfo = await handle.info.remote()
                    return info
            except Exception:  # noqa: BLE001 - whatever is wrong with a stage, health says that it is
                return None

        infos = await asyncio.gather(*(ask(handle) for handle in self._stages.values()))
        return dict(zip(self._stages, infos, strict=True))

    async def stages_without_replica(self) -> tuple[str, ...]:
        """Names of the stages of which no replica is ready to serve, or of all when nobody can tell."""
        return await self._states.without_replica()
