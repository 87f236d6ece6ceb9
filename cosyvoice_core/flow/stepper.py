"""One Euler step for chunks of many streams in one estimator call, whatever step each is at.

Time is per row, and every layer but attention treats rows alike, so streams need not start together: a new one joins
at its next step. Does not choose who steps. Source: docs/model.md, "Flow matching".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.batch import BatchCache
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.prefix import FlowPrefix
from cosyvoice_core.flow.stream import Chunk, FlowStream

_ROWS = 2
"""Of one stream: conditional and unconditional."""


class FlowStepper:
    """Advances chunks by one Euler step; holds nothing of any stream."""

    def __init__(self, model: FlowModel) -> None:
        self._model = model
        self._solver = model.solver

    @torch.inference_mode()
    def step(self, streams: Sequence[FlowStream]) -> list[FlowStream]:
        """One step for each stream (all must have a chunk in work); returns those whose chunk is complete."""
        chunks = [self._chunk(stream) for stream in streams]
        frames = max(chunk.frames for chunk in chunks)
        rows = [self._rows(stream, chunk, frames) for stream, chunk in zip(streams, chunks, strict=True)]
        x, mu, speaker, condition = (torch.cat(parts) for parts in zip(*rows, strict=True))
        caches = [stream.step_caches[chunk.step] for stream, chunk in zip(streams, chunks, strict=True)]
        velocity = self._solver.estimator(
            x,
            mu,
            speaker,
            condition,
            self._solver.projections([chunk.step for chunk in chunks], _ROWS),
            streaming=False,
            cache=BatchCache(caches, _ROWS, [chunk.frames for chunk in chunks]),
        )
        for number, chunk in enumerate(chunks):
            pair = velocity[_ROWS * number : _ROWS * (number + 1), : chunk.frames]
            chunk.x = self._solver.advance(chunk.x, pair[0], pair[1], chunk.step)
            chunk.step += 1
        return [stream for stream, chunk in zip(streams, chunks, strict=True) if chunk.step == self._solver.steps]

    def prefix(self, prompt_tokens: Tensor, prompt_mel: Tensor, speaker: Tensor) -> FlowPrefix:
        """Caches of all chunks that depend on the prompt alone, to be shared by utterances of the voice."""
        stream = FlowStream(self._model, prompt_tokens, prompt_mel, speaker)
        while stream.begin() is not None:
            while not self.step([stream]):
                pass
            stream.finish()
        return stream.snapshot()

    @staticmethod
    def _chunk(stream: FlowStream) -> Chunk:
        if stream.chunk is None:
            raise ValueError("a stream without a chunk in work cannot step")
        return stream.chunk

    @staticmethod
    def _rows(stream: FlowStream, chunk: Chunk, frames: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, mu, speaker, condition of both rows, padded to `frames`; without guidance all but x are zero."""
        padding = (0, 0, 0, frames - chunk.frames)
        x, mu, condition = (F.pad(part, padding) for part in (chunk.x, chunk.mu, chunk.condition))
        return (
            torch.stack((x, x)),
            torch.stack((mu, torch.zeros_like(mu))),
            torch.cat((stream.speaker, torch.zeros_like(stream.speaker))),
            torch.stack((condition, torch.zeros_like(condition))),
        )
