"""Vocoder: mel hops in, audio hops out; asks the flow decoder for the mel of one utterance.

All state of an utterance is local to one generator frame; the step loop of the replica knows it only while it computes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import torch
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.vocoder import StreamWindow, WindowRunner, reserve_kernels
from cosyvoice_core.vocoder import Vocoder as VocoderModel
from cosyvoice_core.waveform import WaveformSession
from deployments.args import AppArgs
from deployments.compute import ListenerClock
from deployments.live_args import LiveArgs
from deployments.messages import AudioHop, MelHop, StageInfo, UtteranceTask
from deployments.metrics import StepMetrics, WorkMetrics
from deployments.pulse import pulsing
from deployments.records import UtteranceRecord
from deployments.stage import OpenCalls, hops_of, resolve_device
from deployments.timing import VOCODER, StageWatch
from deployments.vocoder_engine import VocoderEngine
from deployments.work import WorkMeter


class Vocoder:
    """One replica of the vocoder."""

    def __init__(self, args: AppArgs, flow_decoder: DeploymentHandle) -> None:
        torch.set_num_threads(args.vocoder.threads)
        directory = CheckpointDirectory(resolve_model(args.model_source(), progress=False))
        config = read_model_config(directory.path)
        self._sample_rate = config.sample_rate
        self._device = resolve_device(args.vocoder)
        state = read_state(directory.vocoder)
        self._model = VocoderModel.from_state(state, config.vocoder, str(directory.vocoder)).to(self._device)
        self._flow_decoder = flow_decoder
        self._live = LiveArgs("Vocoder", args)
        self._silence_s = args.playback.silence_timeout_s
        self._open = OpenCalls()
        sizes = args.vocoder.window_frames
        self._window = StreamWindow() if sizes is None else StreamWindow(sizes=sizes)
        runner = WindowRunner(self._model, self._window, args.vocoder.max_batch, record=args.vocoder.cuda_graphs)
        # A replica counts as ready when this is done: the first window of a shape costs several times the next one.
        reserve_kernels(len(runner.cases()))
        runner.warm_up()
        self._frame_rate = config.frame_rate
        self._metrics = StepMetrics("vocoder", "windows")
        self._engine = VocoderEngine(runner, self._stepped)
        cpu = self._engine.cpu_clock() if self._device.type == "cpu" else None
        self._meter = WorkMeter(cpu, on_work=WorkMetrics().observe)

    @pulsing
    async def synthesize(self, task: UtteranceTask) -> AsyncIterator[AudioHop]:
        """Audio hops of one utterance; a hop may hold no samples while the vocoder waits for its right context."""
        clock, watch = ListenerClock(task.lead_s), StageWatch(VOCODER)
        utterance = task.utterance
        session = WaveformSession(
            self._model,
            seed=utterance.seed,
            speed=utterance.speed,
            window=self._window,
            skip_samples=task.sent_samples,
        )
        with self._open, UtteranceRecord(VOCODER, task, "samples") as record:
            async with hops_of(MelHop, self._flow_decoder, "decode", task, silence_s=self._silence_s) as mels:
                async for hop in mels:
                    watch.took_input()
                    async with aclosing(self._audio_of(hop, session, clock, watch)) as pieces:
                        async for audio in pieces:
                            record.made(len(audio.samples), last=audio.last)
                            audio_s = len(audio.samples) / self._sample_rate
                            clock.sent(audio_s)
                            self._meter.made(audio_s)
                            yield audio

    async def _audio_of(
        self, hop: MelHop, session: WaveformSession, clock: ListenerClock, watch: StageWatch
    ) -> AsyncGenerator[AudioHop, None]:
        """The windows that a hop completes; its tokens go with the first of them, its end with the last."""
        ids = hop.ids
        mel = torch.from_numpy(hop.mel).to(self._device)
        async with aclosing(self._engine.push(session, mel, clock, last=hop.last, began=watch.began)) as pieces:
            async for piece in pieces:
                last = hop.last and piece.complete
                finish, timings = hop.finish if last else None, (*hop.timings, watch.timing())
                yield AudioHop(piece.samples.numpy(), ids, last, finish, timings)
                ids = ()

    def _stepped(self, windows: int, seconds: float) -> None:
        self._metrics.observe(windows, seconds)
        self._meter.worked(seconds)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve for the autoscaling policy, see `deployments.scaling_policy`."""
        return {**self._meter.stats(), "owed_s": self._engine.owed_frames / self._frame_rate}

    async def info(self) -> StageInfo:
        device, running, held = str(self._device), self._open.count, self._engine.running
        engine, problem = "batched windows", self._live.problem
        return StageInfo("Vocoder", device, "float32", engine, os.getpid(), running, held, problem)

    async def reconfigure(self, user_config: object) -> None:
        """Called by Serve at start and when `user_config` changes; nothing of a vocoder can, which this says."""
        self._live.take(user_config)
