"""FlowDecoder: token hops in, mel hops out. All state of an utterance is local to one generator frame."""

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
from cosyvoice_core.flow import FlowModel, FlowSession
from cosyvoice_core.inputs import UtteranceInputs
from deployments.args import AppArgs
from deployments.compute import ComputeThread, ListenerClock
from deployments.messages import MelHop, StageInfo, TokenHop, UtteranceTask
from deployments.stage import OpenCalls, hops_of, resolve_device, resolve_dtype


class FlowDecoder:
    """One replica of the flow decoder."""

    def __init__(self, args: AppArgs, speech_lm: DeploymentHandle) -> None:
        torch.set_num_threads(args.flow.threads)
        directory = CheckpointDirectory(resolve_model(args.model_source(), progress=False))
        config = read_model_config(directory.path)
        self._frame_rate = config.frame_rate
        self._model = FlowModel.from_state(
            read_state(directory.flow),
            config.flow,
            source=str(directory.flow),
            device=resolve_device(args.flow),
            dtype=resolve_dtype(args.flow.dtype),
        )
        self._speech_lm = speech_lm
        self._open = OpenCalls()
        self._compute = ComputeThread("flow")

    async def decode(self, task: UtteranceTask) -> AsyncIterator[MelHop]:
        """Mel hops of one utterance, as soon as its tokens complete chunks."""
        clock = ListenerClock(task.lead_s)
        with self._open:
            async with hops_of(TokenHop, self._speech_lm, "generate", task) as tokens:
                # The language model is at work from here on; the prompt's own chunks are computed meanwhile.
                session = await self._compute.run(clock.due, partial(self._start, task.utterance.inputs))
                async for hop in tokens:
                    mel = await self._compute.run(clock.due, partial(session.push, hop.ids, last=hop.last))
                    clock.sent(mel.shape[1] / self._frame_rate)
                    yield MelHop(mel.cpu().numpy(), hop.ids, hop.last, hop.finish)

    def _start(self, inputs: UtteranceInputs) -> FlowSession:
        session = FlowSession(
            self._model,
            torch.from_numpy(inputs.flow_prompt_tokens),
            torch.from_numpy(inputs.flow_prompt_mel),
            torch.from_numpy(inputs.speaker),
        )
        session.push((), last=False)
        return session

    async def info(self) -> StageInfo:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return StageInfo("FlowDecoder", str(self._model.device), dtype, "incremental", os.getpid(), self._open.count)
