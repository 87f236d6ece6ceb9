"""An Euler step of fixed shape: so many slots for streams, so many pages of past, a whole chunk of frames each.

The same computation as `stepper` and `batch` make of streams as they are, for what needs to be the same from call to
call: a CUDA graph. Slots that no stream has, frames behind the end of a last chunk, pages behind the end of a past and
the unconditional row of a first step are computed for nothing. All rows' pages are gathered by number, so that the
operations of a step are as many for sixteen streams as for one, and what differs between steps are values of tensors.

Padding never reaches what counts: convolutions look left, attention does not see it, and what padded queries may read
are zeros and what their own row wrote. Chooses nothing and knows no streams; see `runner.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.attention import finish, project, scale
from cosyvoice_core.flow.batch import RowTails
from cosyvoice_core.flow.cache import Attended, AttentionLayer, Tail
from cosyvoice_core.flow.memory import ROWS, TAIL_WIDTH, FlowMemory
from cosyvoice_core.flow.model import FlowModel
from cosyvoice_core.flow.residual import Conditions


@dataclass(frozen=True, slots=True, order=True)
class StepShape:
    """slots: for streams; pages: of the longest past."""

    slots: int
    pages: int

    @property
    def rows(self) -> int:
        return ROWS * self.slots


@dataclass(frozen=True, slots=True)
class Slot:
    """What is told of a stream's step: which it is, frames that are no padding, and the places of both rows in
    `FlowMemory`, first the one to write, then those of the past."""

    step: int
    frames: int
    places: tuple[tuple[int, ...], tuple[int, ...]]

    @classmethod
    def empty(cls, memory: FlowMemory, slot: int) -> Slot:
        """No stream's: it reads what it writes."""
        return cls(0, memory.page_frames, ((memory.scratch(slot, 0),), (memory.scratch(slot, 1),)))


def packed(memory: FlowMemory, shape: StepShape, slots: Sequence[Slot]) -> Tensor:
    """Slots as one tensor on the host, int64: one transfer to the device.

    Steps (S), frames (S), pages of past (rows), places (rows, 1 + pages); what is missing up to `shape` is empty.
    """
    whole = [*slots, *(Slot.empty(memory, slot) for slot in range(len(slots), shape.slots))]
    rows = [row for slot in whole for row in slot.places]
    numbers = [slot.step for slot in whole] + [slot.frames for slot in whole] + [len(row) - 1 for row in rows]
    for row in rows:
        numbers += [*row, *[memory.blank] * (1 + shape.pages - len(row))]
    return torch.tensor(numbers)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """Tensors of S slots; rows 2 s (conditional) and 2 s + 1 are slot s's; T frames are a chunk.

    numbers as `packed` makes them. x (S, T, bins). start (S, T, bins): unconditional velocity of slots in their first
    step. block, shortcut (S, T, channels): of `Conditions`. tails (rows, width, channels of all convolutions).
    """

    numbers: Tensor
    x: Tensor
    start: Tensor
    block: Tensor
    shortcut: Tensor
    tails: Tensor

    @classmethod
    def blank(cls, model: FlowModel, memory: FlowMemory, shape: StepShape) -> StepInputs:
        """Empty slots."""
        config = model.config

        def zeros(*sizes: int) -> Tensor:
            return torch.zeros(sizes, device=model.device, dtype=model.dtype)

        return cls(
            packed(memory, shape, ()).to(model.device),
            zeros(shape.slots, config.chunk_frames, config.mel_bins),
            zeros(shape.slots, config.chunk_frames, config.mel_bins),
            zeros(shape.slots, config.chunk_frames, config.channels),
            zeros(shape.slots, config.chunk_frames, config.channels),
            zeros(shape.rows, TAIL_WIDTH, sum(model.network.decoder.estimator.tail_channels)),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.numbers, self.x, self.start, self.block, self.shortcut, self.tails


def fixed_step(model: FlowModel, memory: FlowMemory, shape: StepShape, inputs: StepInputs) -> tuple[Tensor, Tensor]:
    """x (S, T, bins) after each slot's step, and tails (rows, width, channels) after it; writes places.

    Nothing here waits for the device or depends on values.
    """
    solver, frames = model.solver, model.config.chunk_frames
    sizes = [shape.slots, shape.slots, shape.rows, shape.rows * (1 + shape.pages)]
    steps, valid, past, places = inputs.numbers.split_with_sizes(sizes)
    caches = _FixedCaches(memory, inputs.tails, places.view(shape.rows, -1), _both(valid), past, scale(model.config))
    unguided = model.unconditional.expanded(frames)
    velocity = solver.estimator.velocity(
        _both(inputs.x),
        Conditions(_beside(inputs.block, unguided.block), _beside(inputs.shortcut, unguided.shortcut)),
        solver.projections_at(_both(steps)),
        cache=caches,
    )
    conditional, unconditional = velocity.view(shape.slots, ROWS, frames, -1).unbind(1)
    unconditional = torch.where((steps == 0)[:, None, None], inputs.start, unconditional)
    return solver.advance_at(inputs.x, conditional, unconditional, steps), caches.tails.after


def _both(values: Tensor) -> Tensor:
    """Slots' values (S, ...) for both of their rows, (rows, ...)."""
    return values[:, None].expand(-1, ROWS, *values.shape[1:]).flatten(0, 1)


def _beside(guided: Tensor, unguided: Tensor) -> Tensor:
    """Guided (S, T, C) and unguided (1, T, C) values, row by row."""
    return torch.stack((guided, unguided.expand_as(guided)), dim=1).flatten(0, 1)


class _FixedCaches:
    """`LayerCaches` of one step, all of whose rows are treated alike."""

    def __init__(
        self, memory: FlowMemory, tails: Tensor, places: Tensor, valid: Tensor, past: Tensor, scale: float
    ) -> None:
        """places (rows, 1 + pages), valid (rows,) frames of the new chunk, past (rows,) pages that count."""
        self.tails = RowTails(tails, _keep_last)
        self._memory = memory
        self._scale = scale
        _, heads, _ = memory.kept_shape
        apart = torch.arange(heads, device=places.device) * memory.heads_apart
        units = places[:, None] + apart[:, None]
        self._own = units[..., 0].flatten()
        self._all = units.flatten()
        frames = memory.page_frames
        positions = torch.arange(places.shape[1] * frames, device=places.device)
        visible = torch.where(
            positions < frames, positions < valid[:, None], positions - frames < past[:, None] * frames
        )
        self._mask = torch.zeros(visible.shape, device=visible.device, dtype=tails.dtype)
        self._mask = self._mask.masked_fill(~visible, -torch.inf)[:, None, None]
        self.rewind()

    def rewind(self) -> None:
        self.tails.rewind()
        self._next_layer = 0

    def tail(self, width: int) -> Tail:
        return self.tails.next(width)

    def attention(self) -> Attended:
        self._next_layer += 1
        return _FixedAttention(self, self._next_layer - 1)

    def attend(self, number: int, layer: AttentionLayer, x: Tensor) -> Tensor:
        memory = self._memory
        tensors, heads, width = memory.kept_shape
        projected = project(memory.form, layer, x)
        units = memory.units(number)
        for store, values in zip(units, projected.kept, strict=True):
            store.index_copy_(0, self._own, values.reshape(len(self._own), -1))
        read = units.index_select(1, self._all).view(tensors, x.shape[0], heads, -1, width)
        queries = projected.queries
        mask = self._mask.expand(-1, queries.shape[1], queries.shape[2], -1)
        out = F.scaled_dot_product_attention(queries, read[0], read[-1], attn_mask=mask, scale=self._scale)
        return finish(memory.form, layer, out)


class _FixedAttention:
    def __init__(self, caches: _FixedCaches, number: int) -> None:
        self._caches = caches
        self._number = number

    def attend(self, layer: AttentionLayer, x: Tensor) -> Tensor:
        return self._caches.attend(self._number, layer, x)


def _keep_last(joined: Tensor, target: Tensor, width: int) -> None:
    target.copy_(joined[:, joined.shape[1] - width :])
