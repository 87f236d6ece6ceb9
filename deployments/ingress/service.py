"""What every door calls: a request in the service's terms in, audio chunks out. Knows no HTTP.

Holds the text front end, the saved voices and the handles of the stages; checks all limits before any stage works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial

import numpy as np
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.inputs import VoicePrompt
from cosyvoice_core.text.frontend import TextFrontEnd
from cosyvoice_core.text.lexicon import Lexicon
from cosyvoice_core.text.tokenizer import Tokenizer
from cosyvoice_core.utterance import SpeechRequest, UtterancePlanner
from cosyvoice_core.voice.encoder import EncodedVoice
from cosyvoice_core.voice.saved import load_saved_voices
from deployments.args import AppArgs
from deployments.ingress.admission.admission import Admission, Listening
from deployments.ingress.callers import ANYONE, Caller
from deployments.ingress.checks import checked_request
from deployments.ingress.readiness import StageStates, infos_of, replicas_of_this_application
from deployments.ingress.request_record import RequestRecord, delivery_of
from deployments.ingress.script import checked_lines, script_characters, with_voices
from deployments.ingress.speaking import Speaker
from deployments.ingress.voice_keeper import VoiceKeeper
from deployments.ingress.voices import VoiceRegistry
from deployments.mailbox import TextSource
from deployments.messages import FirstAudio, ScriptCall, SpeakCall, SpeechChunk, StageInfo
from deployments.metrics import Delivery, ListenerMetrics
from deployments.quotas.holder import QuotaHolder
from deployments.stage import answer_of
from deployments.text_source import MailboxOwner, TextReader
from deployments.timing import RequestWatch
from deployments.voices.catalogue import Catalogue
from deployments.voices.store import VoiceStore


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
        place = args.voices.place()
        saved_voices = None if place is None else Catalogue(VoiceStore(place, config.flow), args.voices)
        self.voices = VoiceRegistry(voices, config.token_rate, saved_voices, args.voice_aliases)
        self.voice_keeper = VoiceKeeper(self.voices, args.voices, self._new_voice)
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
        self._stages = stages
        # Text is normalised and tokenised off the event loop; one thread, as the number reader is not reentrant.
        self._text_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="text")
        self._speaker = Speaker(
            vocoder,
            self._planner,
            self._text_thread,
            self._admission,
            texts,
            self._reader,
            stages.get("VoiceEncoder"),
            config.sample_rate,
            config.token_rate,
        )

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

    async def look_for_voices(self, *calls: SpeakCall) -> None:
        """What `request_of` says of the voices of one caller's calls holds now.

        Raises VoiceRefusedError when that cannot be told.
        """
        names = {call.voice for call in calls if call.voice is not None}
        if names:
            await self.voices.look(*names, caller=calls[0].caller)

    def request_of(self, call: SpeakCall, *, streamed: bool) -> SpeechRequest:
        """The request but for its voice. Raises InputError for whatever can be told before any stage works."""
        return checked_request(call, self.args.limits, self.voices, self._sampling, streamed=streamed)

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
        growing = isinstance(call.text, TextSource)
        async with AsyncExitStack() as stack:
            record = stack.enter_context(self._record(call, watch, delivery_of(call, streamed=streamed)))
            if isinstance(call.text, TextSource):
                # Also where nobody comes to read it: refused, or left while it waited.
                stack.callback(self._reader.drop, call.text)
            await self.look_for_voices(call)
            request = self.request_of(call, streamed=streamed)
            known = len(call.text) if isinstance(call.text, str) else 0
            spending = await stack.enter_async_context(self._quotas.stream(call.caller, known))
            listening = await self._admitted(stack, call, realtime=call.realtime and streamed, complete=not growing)
            watch.admitted()
            request = replace(request, voice=await self._voice(call, request))
            watch.voice_ready()
            realtime = listening is not None
            told = self._speaker.chunks(call, request, record, spending, self.args, realtime=realtime)
            chunks = await stack.enter_async_context(aclosing(self._told(told, watch, record, listening)))
            async for chunk in chunks:
                yield chunk

    async def read(
        self, script: ScriptCall, request_id: str, *, streamed: bool = True
    ) -> AsyncGenerator[SpeechChunk, None]:
        """All lines of a script in order; otherwise as `speak`. Raises InputError that names the line."""
        watch = RequestWatch(request_id)
        async with AsyncExitStack() as stack:
            delivery: Delivery = "listener" if script.realtime and streamed else "file"
            record = stack.enter_context(self._record(script, watch, delivery))
            await self.look_for_voices(*(line.by(script.caller) for line in script.lines))
            lines = checked_lines(script, self.args.limits, partial(self.request_of, streamed=True), streamed=streamed)
            await stack.enter_async_context(self._quotas.stream(script.caller, script_characters(script)))
            listening = await self._admitted(stack, script, realtime=script.realtime and streamed)
            watch.admitted()
            lines = [line async for line in with_voices(lines, self._voice)]
            watch.voice_ready()
            told = self._speaker.lines(script, lines, record, self.args, realtime=listening is not None)
            chunks = await stack.enter_async_context(aclosing(self._told(told, watch, record, listening)))
            async for chunk in chunks:
                yield chunk

    def _record(self, call: SpeakCall | ScriptCall, watch: RequestWatch, delivery: Delivery) -> RequestRecord:
        caller = None if call.caller == ANYONE else call.caller.name
        return RequestRecord(self.metrics, watch, delivery, caller=caller)

    async def _admitted(
        self, stack: AsyncExitStack, call: SpeakCall | ScriptCall, *, realtime: bool, complete: bool = True
    ) -> Listening | None:
        if realtime:
            return await stack.enter_async_context(self._admission.listener(call.priority, complete=complete))
        await stack.enter_async_context(self._admission.file(call.priority))
        return None

    async def _told(
        self,
        chunks: AsyncGenerator[SpeechChunk, None],
        watch: RequestWatch,
        record: RequestRecord,
        listening: Listening | None,
    ) -> AsyncGenerator[SpeechChunk, None]:
        """Pass on what leaves, and tell all who look on; the first chunk gets the account of its time."""
        first_audio: FirstAudio | None = None
        async with aclosing(chunks):
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

    async def _voice(self, call: SpeakCall, request: SpeechRequest) -> VoicePrompt:
        if call.prompt_audio is None:
            assert call.voice is not None
            return await self.voices.prompt(call.voice, call.caller)
        if isinstance(call.text, str):
            # A text without words is not worth the models that read a voice.
            check = partial(self._planner.check_text, request)
            await asyncio.get_running_loop().run_in_executor(self._text_thread, check)
        return (await self._encoded(call.prompt_audio, call.prompt_text)).prompt

    async def _new_voice(self, audio: bytes, transcript: str, caller: Caller) -> EncodedVoice:
        """Counts as a request of the caller's."""
        async with self._quotas.stream(caller, 0):
            return await self._encoded(audio, transcript)

    async def _encoded(self, audio: bytes, prompt_text: str) -> EncodedVoice:
        encoder, playback = self._stages["VoiceEncoder"], self.args.playback
        encoded: EncodedVoice = await answer_of(encoder, "encode", audio, playback=playback)
        if not prompt_text.strip():
            return encoded
        transcript, ids = await asyncio.get_running_loop().run_in_executor(
            self._text_thread, partial(self._planner.transcript, prompt_text)
        )
        prompt = replace(encoded.prompt, transcript=transcript, transcript_ids=np.asarray(ids, np.int32))
        return replace(encoded, prompt=prompt)

    async def stage_infos(self) -> dict[str, StageInfo | None]:
        """What each stage says of itself; None where none answers in time."""
        return await infos_of(self._stages)

    async def stages_without_replica(self) -> tuple[str, ...]:
        """Names of the stages of which no replica is ready to serve, or of all when nobody can tell."""
        return await self._states.without_replica()
