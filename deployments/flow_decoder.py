"""FlowDecoder: token hops in, mel hops out. All state of an utterance is local to one generator frame."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import torch
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.flow import FlowModel
from cosyvoice_core.flow.load import FlowLoad
from cosyvoice_core.flow.memory import FlowMemory
from cosyvoice_core.flow.runner import StepRunner
from cosyvoice_core.flow.scheduler import FlowScheduler, FlowVoice
from cosyvoice_core.flow.stream import FlowStream
from cosyvoice_core.inputs import FloatArray, IntArray, UtteranceInputs
from cosyvoice_core.voice.alignment import ChunkAlignment
from cosyvoice_core.voice.saved import load_saved_voices
from deployments.args import AppArgs
from deployments.compute import ListenerClock
from deployments.flow_engine import FlowEngine
from deployments.live_args import LiveArgs
from deployments.messages import MelHop, StageInfo, TokenHop, UtteranceTask
from deployments.metrics import FlowMetrics, WorkMetrics
from deployments.pulse import pulsing
from deployments.records import UtteranceRecord
from deployments.sizing import cache_form
from deployments.stage import OpenCalls, hops_of, resolve_device, resolve_dtype
from deployments.timing import FLOW, StageWatch
from deployments.work import WorkMeter


class FlowDecoder:
    """One replica of the flow decoder."""

    def __init__(self, args: AppArgs, speech_lm: DeploymentHandle) -> None:
        torch.set_num_threads(args.flow.threads)
        directory = CheckpointDirectory(resolve_model(args.model_source(), progress=False))
        config = read_model_config(directory.path)
        self._frame_rate, self._token_rate = config.frame_rate, config.token_rate
        self._model = FlowModel.from_state(
            read_state(directory.flow),
            config.flow,
            source=str(directory.flow),
            device=resolve_device(args.flow),
            dtype=resolve_dtype(args.flow.dtype),
        )
        self._speech_lm = speech_lm
        self._live = LiveArgs("FlowDecoder", args)
        self._silence_s = args.playback.silence_timeout_s
        self._open = OpenCalls()
        # A replica counts as ready when all this is done.
        self._scheduler = self._build_scheduler(args)
        self._scheduler.warm_up(args.flow.warm_up_s * config.token_rate // config.flow.chunk_tokens)
        if args.flow.warm_voices and (saved := directory.saved_voices):
            self._warm(saved, args.hops.alignment(config.flow.chunk_tokens))
        self._metrics = FlowMetrics()
        self._load = self._scheduler.load
        self._engine = FlowEngine(self._scheduler, self._observe)
        cpu = self._engine.cpu_clock() if self._model.device.type == "cpu" else None
        self._meter = WorkMeter(cpu, on_work=WorkMetrics().observe)

    @pulsing
    async def decode(self, task: UtteranceTask) -> AsyncIterator[MelHop]:
        """Mel hops of one utterance, a chunk at a time, as soon as its tokens complete chunks."""
        clock, watch = ListenerClock(task.lead_s), StageWatch(FLOW)
        voice = _voice(task.utterance.inputs)
        with self._open, UtteranceRecord(FLOW, task, "frames") as record:
            # The language model is at work from the first line on; the prompt's own chunks are computed meanwhile.
            async with (
                hops_of(TokenHop, self._speech_lm, "generate", task, silence_s=self._silence_s) as tokens,
                self._engine.stream(voice, clock) as stream,
            ):
                watch.prepared()
                async for hop in tokens:
                    watch.took_input()
                    # Closed before the stream is, should this call be: its push is taken back first.
                    async with aclosing(self._mel_of(hop, stream, clock, watch)) as mel_hops:
                        async for mel_hop in mel_hops:
                            record.made(mel_hop.mel.shape[1], last=mel_hop.last)
                            audio_s = mel_hop.mel.shape[1] / self._frame_rate
                            clock.sent(audio_s)
                            self._meter.made(audio_s)
                            yield replace(mel_hop, timings=(*hop.timings, watch.timing()))

    async def _mel_of(
        self, hop: TokenHop, stream: FlowStream, clock: ListenerClock, watch: StageWatch
    ) -> AsyncGenerator[MelHop, None]:
        """The chunks that a hop completes; its tokens go with the first of them, its end with the last."""
        ids, waiting = hop.ids, torch.zeros((self._model.config.mel_bins, 0))
        async with aclosing(self._engine.push(stream, hop.ids, clock, last=hop.last, began=watch.began)) as chunks:
            async for mel in chunks:
                if waiting.shape[1]:
                    yield MelHop(waiting.numpy(), ids, last=False)
                    ids = ()
                waiting = mel
        yield MelHop(waiting.numpy(), ids, hop.last, hop.finish)

    def _observe(self, load: FlowLoad, seconds: float | None) -> None:
        self._load = load
        self._metrics.observe(load, seconds)
        if seconds is not None:
            self._meter.worked(seconds)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve for the autoscaling policy, see `deployments.scaling_policy`."""
        return {**self._meter.stats(), "owed_s": self._engine.owed_tokens / self._token_rate}

    async def info(self) -> StageInfo:
        dtype = str(self._model.dtype).removeprefix("torch.")
        engine = f"batched, {self._scheduler.memory.form} caches"
        held, device = self._load.open + self._load.stream_pages, str(self._model.device)
        running, problem = self._open.count, self._live.problem
        return StageInfo("FlowDecoder", device, dtype, engine, os.getpid(), running, held, problem)

    async def reconfigure(self, user_config: object) -> None:
        """Called by Serve at start and when `user_config` changes; counts from the next step on."""
        self._live.take(user_config, lambda args: self._scheduler.set_limits(args.flow.limits()))

    def _build_scheduler(self, args: AppArgs) -> FlowScheduler:
        flow = args.flow
        form = cache_form(self._model, flow)
        record = flow.graphs == "auto" and self._model.device.type == "cuda"
        memory = FlowMemory(self._model, flow.cache_bytes, form, slots=flow.max_batch if record else 0)
        runner = None
        if record:
            runner = StepRunner(self._model, memory, flow.graph_pages, record=True)
            runner.warm_up()
        return FlowScheduler(
            self._model,
            memory,
            flow.limits(),
            prefix_bytes=min(flow.prefix_cache_bytes, flow.cache_bytes),
            left_chunks=flow.left_chunks,
            runner=runner,
        )

    def _warm(self, saved: Path, alignment: ChunkAlignment | None) -> None:
        """Compute what utterances of the saved voices share, as far as memory allows, before this replica is ready."""
        # Transcripts are the language model's; their ids play no part here.
        for voice in load_saved_voices(saved, lambda _text: (), flow=self._model.config).values():
            tokens, mel = voice.speech_tokens, voice.mel
            if alignment is not None:
                tokens, mel = alignment.cut(tokens, mel)
            if not self._scheduler.warm(_prompt(tokens, mel, voice.speaker)):
                return


def _voice(inputs: UtteranceInputs) -> FlowVoice:
    return _prompt(inputs.flow_prompt_tokens, inputs.flow_prompt_mel, inputs.speaker)


def _prompt(tokens: IntArray, mel: FloatArray, speaker: FloatArray) -> FlowVoice:
    """A prompt under a name for everything that its chunks depend on."""
    digest = hashlib.sha256()
    for array in (tokens, mel, speaker):
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return FlowVoice(digest.hexdigest(), *(torch.from_numpy(array) for array in (tokens, mel, speaker)))
