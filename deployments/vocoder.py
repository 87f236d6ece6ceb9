"""Vocoder: mel hops in, audio hops out; asks the flow decoder for the mel of one utterance."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import partial

import torch
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.inputs import FloatArray
from cosyvoice_core.vocoder import Vocoder as VocoderModel
from cosyvoice_core.waveform import WaveformSession
from deployments.args import AppArgs
from deployments.compute import ComputeThread, ListenerClock
from deployments.messages import AudioHop, MelHop, StageInfo, UtteranceTask
from deployments.stage import OpenCalls, hops_of, resolve_device
from deployments.timing import VOCODER, StageWatch


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
        self._open = OpenCalls()
        self._compute = ComputeThread("vocoder")

    async def synthesize(self, task: UtteranceTask) -> AsyncIterator[AudioHop]:
        """Audio hops of one utterance; a hop may hold no samples while the vocoder waits for its right context."""
        clock, watch = ListenerClock(task.lead_s), StageWatch(VOCODER)
        utterance = task.utterance
        session = WaveformSession(self._model, seed=utterance.seed, speed=utterance.speed)
        with self._open:
            async with hops_of(MelHop, self._flow_decoder, "decode", task) as mels:
                async for hop in mels:
                    watch.took_input()
                    samples = await self._compute.run(clock.due, partial(self._push, session, hop, watch))
                    clock.sent(len(samples) / self._sample_rate)
                    yield AudioHop(samples, hop.ids, hop.last, hop.finish, (*hop.timings, watch.timing()))

    @staticmethod
    def _push(session: WaveformSession, hop: MelHop, watch: StageWatch) -> FloatArray:
        watch.began()
        samples: FloatArray = session.push(torch.from_numpy(hop.mel), last=hop.last).cpu().numpy()
        return samples

    async def info(self) -> StageInfo:
        return StageInfo("Vocoder", str(self._device), "float32", "windowed", os.getpid(), self._open.count)
