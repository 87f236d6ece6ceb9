"""One Euler step for chunks of many streams in one estimator call, whatever step each is at.

Time is per row, and every layer but attention treats rows alike, so streams need not start together: a new one joins
at its next step. A step that fails leaves all streams as they were. Does not choose who steps.
Source: docs/model.md, "Flow matching".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.attention import scale
from cosyvoice_core.flow.batch import Part, StepBatch
from cosyvoice_core.flow.chunk import Chunk
from cosyvoice_core.flow.memory import FlowMemory, rows_of
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.prefix import FlowPrefix
from cosyvoice_core.flow.residual import Conditions
from cosyvoice_core.flow.runner import Stepped, StepRunner
from cosyvoice_core.flow.stream import FlowStream
from cosyvoice_core.flow.unguided import UnguidedStart

_Run = Callable[[Sequence[Chunk], Sequence[Tensor | None]], list[Stepped]]


class FlowStepper:
    """Advances chunks by one Euler step; of streams it holds nothing but the memory they share."""

    def __init__(self, model: FlowModel, memory: FlowMemory, runner: StepRunner | None = None) -> None:
        """`memory` is where the streams keep their caches; a `runner` takes the chunks that fit its shapes."""
        self._model = model
        self.memory = memory
        self._runner = runner
        self._unguided = UnguidedStart(model)

    @torch.inference_mode()
    def step(self, streams: Sequence[FlowStream]) -> list[FlowStream]:
        """One step for each stream (all must have a chunk in work); returns those whose chunk is complete."""
        chunks = [self._chunk(stream) for stream in streams]
        starts = [self._unguided.velocity(chunk.first, chunk.stop) if chunk.step == 0 else None for chunk in chunks]
        stepped: dict[int, Stepped] = {}
        for run, numbers in self._calls(chunks):
            results = run([chunks[number] for number in numbers], [starts[number] for number in numbers])
            stepped.update(zip(numbers, results, strict=True))
        for number, chunk in enumerate(chunks):
            chunk.x = stepped[number].x
            chunk.tails_after.append(stepped[number].tails)
            chunk.step += 1
        steps = self._model.solver.steps
        return [stream for stream, chunk in zip(streams, chunks, strict=True) if chunk.step == steps]

    def width(self, chunk: Chunk) -> int:
        """Frames that a chunk takes in a call, padding of its shape included."""
        fixed = self._runner is not None and self._runner.fits(chunk)
        return self._model.config.chunk_frames if fixed else chunk.frames

    def prefix(self, prompt_tokens: Tensor, prompt_mel: Tensor, speaker: Tensor) -> FlowPrefix | None:
        """Caches of all chunks that depend on the prompt alone, to be shared by utterances of the voice.

        None when memory does not hold them.
        """
        stream = FlowStream(self._model, self.memory, prompt_tokens, prompt_mel, speaker)
        try:
            while stream.begin() is not None:
                while not self.step([stream]):
                    pass
                stream.finish()
            return stream.snapshot()
        finally:
            stream.close()

    def _calls(self, chunks: Sequence[Chunk]) -> Iterator[tuple[_Run, list[int]]]:
        """Which chunks go together, by number, and how."""
        runner = self._runner
        fitting = [] if runner is None else [number for number, chunk in enumerate(chunks) if runner.fits(chunk)]
        if runner is not None:
            for begin in range(0, len(fitting), runner.most):
                yield runner.run, fitting[begin : begin + runner.most]
        if others := [number for number in range(len(chunks)) if number not in fitting]:
            yield self._run, others

    def _run(self, chunks: Sequence[Chunk], starts: Sequence[Tensor | None]) -> list[Stepped]:
        """One estimator call for chunks as they are, padded to the longest."""
        solver = self._model.solver
        frames = max(chunk.frames for chunk in chunks)
        batch = StepBatch(self.memory, [self._part(chunk) for chunk in chunks], frames, scale(self._model.config))
        velocity = solver.estimator.velocity(
            torch.cat([self._x(chunk, frames) for chunk in chunks]),
            Conditions.rows([self._conditions(chunk, frames) for chunk in chunks]),
            solver.projections([chunk.step for chunk in chunks], batch.sizes),
            cache=batch,
        )
        results = []
        for chunk, rows, tails, start in zip(
            chunks, velocity.split_with_sizes(batch.sizes), batch.tails_after(), starts, strict=True
        ):
            unconditional = rows[1, : chunk.frames] if start is None else start
            x = solver.advance(chunk.x, rows[0, : chunk.frames], unconditional, chunk.step)
            results.append(Stepped(x, tails))
        return results

    @staticmethod
    def _chunk(stream: FlowStream) -> Chunk:
        if stream.chunk is None:
            raise ValueError("a stream without a chunk in work cannot step")
        return stream.chunk

    @staticmethod
    def _part(chunk: Chunk) -> Part:
        return Part(
            rows_of(chunk.step), chunk.frames, chunk.step, chunk.tails[chunk.step], chunk.past, chunk.kept, chunk.mask
        )

    @staticmethod
    def _x(chunk: Chunk, frames: int) -> Tensor:
        """(rows, frames, bins), the same in both rows."""
        padded = chunk.x if chunk.frames == frames else F.pad(chunk.x, (0, 0, 0, frames - chunk.frames))
        return padded.expand(rows_of(chunk.step), -1, -1)

    def _conditions(self, chunk: Chunk, frames: int) -> Conditions:
        """Of both rows; without guidance nothing but what the convolution makes of zeros."""
        guided = chunk.conditions.padded(frames)
        if rows_of(chunk.step) == 1:
            return guided
        return Conditions.rows([guided, self._model.unconditional.expanded(frames)])
