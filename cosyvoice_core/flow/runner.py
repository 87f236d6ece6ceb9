"""Euler steps of a few fixed shapes for the chunks of streams, each shape made ready before the first that counts.

Chunks that go on from what is in pages fit; those that compute their past again, and pasts longer than the longest
shape, do not, and take the way of `stepper`. Knows nothing of which streams are urgent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.chunk import Chunk
from cosyvoice_core.flow.fixed import Slot, StepInputs, StepShape, fixed_step, packed
from cosyvoice_core.flow.memory import ROWS, FlowMemory, rows_of
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.recording import FixedWork, batch_sizes

DEFAULT_PAGES = (4, 8, 16, 32)
"""Pages of past, one a second, prompt included."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """What a step gives a chunk: x (T, bins), and tails (rows of the step, width, channels)."""

    x: Tensor
    tails: Tensor


class StepRunner:
    """Runs steps of up to `memory.slots` streams, in 1, 2, 4 ... slots and a few lengths of past."""

    def __init__(
        self, model: FlowModel, memory: FlowMemory, pages: Sequence[int] = DEFAULT_PAGES, *, record: bool = False
    ) -> None:
        """pages: lengths of past that there are shapes for; record: replay CUDA graphs.

        Raises ValueError for memory without slots, pages that do not grow, and graphs on another device.
        """
        if memory.slots < 1:
            raise ValueError("fixed shapes need memory with slots")
        if not pages or list(pages) != sorted(set(pages)) or pages[0] < 1:
            raise ValueError(f"pages must be growing numbers of at least 1, got {tuple(pages)}")
        if record and model.device.type != "cuda":
            raise ValueError(f"CUDA graphs need a CUDA device, the flow is on {model.device}")
        self._model = model
        self._memory = memory
        self._pages = tuple(pages)
        self._record = record
        self._pool = torch.cuda.graph_pool_handle() if record else None
        self._ready: dict[StepShape, FixedWork] = {}

    @property
    def most(self) -> int:
        """Streams in one step."""
        return self._memory.slots

    def shapes(self) -> list[StepShape]:
        return [StepShape(slots, pages) for slots in batch_sizes(self.most) for pages in self._pages]

    @torch.inference_mode()
    def warm_up(self) -> int:
        """Make every shape ready; returns how many there are."""
        # Largest first, so that smaller ones find memory that fits.
        shapes = sorted(self.shapes(), key=lambda shape: shape.slots * (1 + shape.pages), reverse=True)
        for shape in shapes:
            self._work(shape)
        return len(shapes)

    def fits(self, chunk: Chunk) -> bool:
        """Whether there is a shape for this chunk."""
        return (
            chunk.mask is None
            and chunk.frames <= self._memory.page_frames
            and len(chunk.kept) <= 1
            and len(chunk.past) <= self._pages[-1]
        )

    @torch.inference_mode()
    def run(self, chunks: Sequence[Chunk], starts: Sequence[Tensor | None]) -> list[Stepped]:
        """One step of chunks that fit, at most `most`; starts: unconditional velocity (T, bins) of those in their
        first step. Changes nothing but places that count for nobody yet."""
        longest = max(len(chunk.past) for chunk in chunks)
        shape = StepShape(
            next(slots for slots in batch_sizes(self.most) if slots >= len(chunks)),
            next(pages for pages in self._pages if pages >= longest),
        )
        inputs = self._inputs(shape, chunks, starts)
        x, tails = self._work(shape).run(inputs.tensors)
        x = x.clone()
        # Tails stay with a stream for long: a view would keep those of the whole batch.
        return [
            Stepped(x[slot, : chunk.frames], tails[ROWS * slot : ROWS * slot + rows_of(chunk.step)].clone())
            for slot, chunk in enumerate(chunks)
        ]

    def _work(self, shape: StepShape) -> FixedWork:
        if shape not in self._ready:
            blank = StepInputs.blank(self._model, self._memory, shape)
            step = partial(fixed_step, self._model, self._memory, shape, blank)
            self._ready[shape] = FixedWork(blank.tensors, step, record=self._record, pool=self._pool)
        return self._ready[shape]

    def _inputs(self, shape: StepShape, chunks: Sequence[Chunk], starts: Sequence[Tensor | None]) -> StepInputs:
        empty = shape.slots - len(chunks)
        slots = [self._slot(slot, chunk) for slot, chunk in enumerate(chunks)]
        numbers = packed(self._memory, shape, slots)
        if self._model.device.type == "cuda":
            # From pinned memory the copy does not wait for the device.
            numbers = numbers.pin_memory()
        x = self._stacked([chunk.x for chunk in chunks], empty)
        first = any(chunk.step == 0 for chunk in chunks)
        begun = [chunk.x if start is None else start for chunk, start in zip(chunks, starts, strict=True)]
        tails = [chunk.tails[chunk.step].expand(ROWS, -1, -1) for chunk in chunks]
        return StepInputs(
            numbers=numbers,
            x=x,
            # Looked at in first steps only.
            start=self._stacked(begun, empty) if first else x,
            block=self._stacked([chunk.conditions.block[0] for chunk in chunks], empty),
            shortcut=self._stacked([chunk.conditions.shortcut[0] for chunk in chunks], empty),
            tails=torch.cat([*tails, *[torch.zeros_like(tails[0])] * empty]),
        )

    def _stacked(self, frames: Sequence[Tensor], empty: int) -> Tensor:
        """Frames (T or less, C) of slots, and zeros, as (S, T, C)."""
        whole = self._memory.page_frames
        padded = [part if len(part) == whole else F.pad(part, (0, 0, 0, whole - len(part))) for part in frames]
        return torch.stack([*padded, *[torch.zeros_like(padded[0])] * empty])

    def _slot(self, slot: int, chunk: Chunk) -> Slot:
        memory, step = self._memory, chunk.step

        def places(row: int) -> tuple[int, ...]:
            if row >= rows_of(step):
                return (memory.scratch(slot, row),)
            past = [memory.place(step, row, page) for page in chunk.past]
            own = memory.place(step, row, chunk.kept[0]) if chunk.kept else memory.scratch(slot, row)
            return (own, *past)

        return Slot(step, chunk.frames, (places(0), places(1)))
