"""SpeechLM: text in, speech tokens out, in hops. Knows nothing of mel or audio."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, contextmanager

import torch

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.hops import HopCutter
from cosyvoice_core.lm.vocabulary import SpeechVocabulary
from deployments.args import AppArgs
from deployments.live_args import LiveArgs
from deployments.messages import Finish, StageInfo, TokenHop, UtteranceTask
from deployments.metrics import LanguageModelMetrics, WorkMetrics
from deployments.pulse import pulsing
from deployments.records import UtteranceRecord
from deployments.speech_lm.engine import EngineDiedError
from deployments.speech_lm.engine_choice import make_engine
from deployments.speech_lm.text import GrowingTexts
from deployments.stage import OpenCalls, resolve_device, resolve_dtype
from deployments.timing import LM, StageWatch
from deployments.work import WorkMeter

logger = logging.getLogger("ray.serve")


class SpeechLM:
    """One replica of the language model."""

    def __init__(self, args: AppArgs) -> None:
        torch.set_num_threads(args.lm.threads)
        directory = CheckpointDirectory(resolve_model(args.model_source(), progress=False))
        config = read_model_config(directory.path)
        self._live = LiveArgs("SpeechLM", args)
        self._vocabulary = SpeechVocabulary.cosyvoice2(config.lm.text_rows, config.lm.speech_tokens)
        self._flow = config.flow
        self._hops = args.hops.plan()
        self._device, self._dtype = resolve_device(args.lm), resolve_dtype(args.lm.dtype)
        self._open = OpenCalls()
        self._texts = GrowingTexts(args.lm.growing_texts, args.lm.text_idle_timeout_s)
        self._engine = make_engine(directory.path, config, args.lm)
        self._meter = WorkMeter(self._engine.cpu_clock(), on_work=WorkMetrics().observe)
        self._metrics = LanguageModelMetrics(self._meter, config.token_rate)

    @pulsing
    async def generate(self, task: UtteranceTask) -> AsyncIterator[TokenHop]:
        """Hops of speech tokens; tokens of the task's history come first, as if just decoded.

        Raises OverloadedError for a growing text beyond those this replica takes, InputError when it breaks off.
        """
        utterance = task.utterance
        ends = self._hops.ends(len(utterance.inputs.flow_prompt_tokens), self._flow)
        source = utterance.inputs.source_tokens
        if source is not None:
            cutter = HopCutter(ends)
            for ids in cutter.add(source.tolist()):
                yield TokenHop(ids, last=False)
            yield TokenHop(cutter.rest(), last=True, finish=Finish.END_OF_SPEECH)
            return
        cutter = HopCutter(ends, task.history)
        watch = StageWatch(LM)
        with ExitStack() as stack:
            record = stack.enter_context(UtteranceRecord(LM, task, "tokens"))
            stack.enter_context(self._open)
            stack.enter_context(self._engine_alive())
            metrics = stack.enter_context(self._metrics.request())
            if task.text is None:
                request = utterance.token_request(self._vocabulary, task.history)
                tokens = self._engine.generate(request, task.lead_s)
            else:
                text = stack.enter_context(self._texts.admit()).ids(task.text, metrics)
                tokens = self._engine.generate_stream(utterance.stream_request(), watch.inputs(text))
            async with aclosing(tokens) as batches:
                async for batch in batches:
                    metrics.tokens(len(batch.ids))
                    watch.began()
                    record.made(len(batch.ids), last=batch.finish is not None)
                    for ids in cutter.add(batch.ids):
                        metrics.hop()
                        yield TokenHop(ids, last=False, timings=(watch.timing(),))
                    if batch.finish is not None:
                        self._note_length(task, batch.finish)
                        yield TokenHop(cutter.rest(), last=True, finish=batch.finish, timings=(watch.timing(),))

    @staticmethod
    def _note_length(task: UtteranceTask, finish: Finish) -> None:
        if finish is Finish.LENGTH:
            index, most = task.utterance.index, task.utterance.max_tokens
            logger.warning("request %s segment %d: no end of speech within %d tokens", task.request_id, index, most)

    async def info(self) -> StageInfo:
        dtype = str(self._dtype).removeprefix("torch.")
        running, held = self._open.count, self._engine.held
        name, problem = self._engine.name, self._live.problem
        return StageInfo("SpeechLM", str(self._device), dtype, name, os.getpid(), running, held, problem)

    async def reconfigure(self, user_config: object) -> None:
        """Called by Serve at start and when `user_config` changes; counts for utterances that begin later."""
        self._live.take(user_config, self._apply)

    def _apply(self, args: AppArgs) -> None:
        self._hops = args.hops.plan()
        self._texts.allow(args.lm.growing_texts, args.lm.text_idle_timeout_s)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve for the autoscaling policy, see `deployments.scaling_policy`."""
        return {**self._meter.stats(), "owed_s": self._metrics.owed_s}

    async def check_health(self) -> None:
        with self._engine_alive():
            await self._engine.check_health()

    @contextmanager
    def _engine_alive(self) -> Iterator[None]:
        """End this process when the engine turns out to be dead.

        To its callers that is the death of a replica, after which they go on elsewhere. Were it left to health checks,
        which must fail three times, replays would come here until then and use themselves up.
        """
        try:
            yield
        except EngineDiedError as error:
            logger.error("this replica ends: %s", error)
            os._exit(1)
