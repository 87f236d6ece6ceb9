"""FlowDecoder: token hops in, mel hops out. All state of an utterance is local to one generator frame."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import aclosing

import torch
from ray.serve.handle import DeploymentHandle

from cosyvoice_core.checkpoint.directory import CheckpointDirectory
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.checkpoint.settings import read_model_config
from cosyvoice_core.checkpoint.tensors import read_state
from cosyvoice_core.flow import FlowModel
from cosyvoice_core.flow.prefix import PrefixCache
from cosyvoice_core.flow.stream import FlowStream
from cosyvoice_core.inputs import UtteranceInputs
from deployments.args import AppArgs
from deployments.compute import ListenerClock
from deployments.flow_engine import FlowEngine
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
        self._engine = FlowEngine(self._model, args.flow.max_batch)
        self._prefixes = PrefixCache(args.flow.prefix_cache_bytes)

    async def decode(self, task: UtteranceTask) -> AsyncIterator[MelHop]:
        """Mel hops of one utterance, a chunk at a time, as soon as its tokens complete chunks."""
        clock = ListenerClock(task.lead_s)
        with self._open:
            async with hops_of(TokenHop, self._speech_lm, "generate", task) as tokens:
                # The language model is at work from here on; the prompt's own chunks are computed meanwhile.
                stream = await self._start(task.utterance.inputs, clock)
                async for hop in tokens:
                    async for mel_hop in self._mel_of(hop, stream, clock):
                        clock.sent(mel_hop.mel.shape[1] / self._frame_rate)
                        yield mel_hop

    async def _start(self, inputs: UtteranceInputs, clock: ListenerClock) -> FlowStream:
        """A stream whose prompt chunks are done, or taken over from an earlier utterance of the voice."""
        voice = _voice_key(inputs)
        stream = FlowStream(
            self._model,
            torch.from_numpy(inputs.flow_prompt_tokens),
            torch.from_numpy(inputs.flow_prompt_mel),
            torch.from_numpy(inputs.speaker),
            self._prefixes.get(voice),
        )
        async for _ in self._engine.push(stream, (), clock, last=False):
            pass
        self._prefixes.put(voice, stream.snapshot)
        return stream

    async def _mel_of(self, hop: TokenHop, stream: FlowStream, clock: ListenerClock) -> AsyncIterator[MelHop]:
        """The chunks that a hop completes; its tokens go with the first of them, its end with the last."""
        ids, waiting = hop.ids, torch.zeros((self._model.config.mel_bins, 0))
        async with aclosing(self._engine.push(stream, hop.ids, clock, last=hop.last)) as chunks:
            async for mel in chunks:
                if waiting.shape[1]:
                    yield MelHop(waiting.numpy(), ids, last=False)
                    ids = ()
                waiting = mel.cpu()
        yield MelHop(waiting.numpy(), ids, hop.last, hop.finish)

    async def info(self) -> StageInfo:
        dtype = str(self._model.dtype).removeprefix("torch.")
        return StageInfo("FlowDecoder", str(self._model.device), dtype, "batched", os.getpid(), self._open.count)


def _voice_key(inputs: UtteranceInputs) -> str:
    """A name for everything that the prompt's chunks depend on."""
    digest = hashlib.sha256()
    for array in (inputs.flow_prompt_tokens, inputs.flow_prompt_mel, inputs.speaker):
        digest.update(str(array.shape).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
