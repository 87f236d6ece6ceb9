"""Caches of several streams behind the interface of one, so that one pass serves chunks of all of them.

Rows of one stream lie together; everything but attention runs on all rows at once, attention on each stream's own
past. Nothing of a stream changes before its pass has succeeded: new tails are handed over at the end, and pages are
written behind what counts. Knows neither solver nor schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cosyvoice_core.flow.attention import Piece, attend, finish, project
from cosyvoice_core.flow.cache import AttentionLayer, Tail
from cosyvoice_core.flow.memory import FlowMemory
from cosyvoice_core.flow.pages import Run, runs


@dataclass(frozen=True, slots=True)
class Part:
    """One stream in a pass.

    rows, frames: of the pass's tensors, those that are the stream's and no padding; step: its Euler step; tails (rows,
    width, channels of all convolutions): the input frames before the first; past: pages of earlier chunks; kept: pages
    to write, one for each chunk, or none when nobody will ask for these frames again; mask (frames, all frames of the
    past and these), None where each sees all.
    """

    rows: int
    frames: int
    step: int
    tails: Tensor
    past: tuple[int, ...]
    kept: tuple[int, ...]
    mask: Tensor | None


class RowTails:
    """Tails of all convolutions of a pass, side by side on the axis of channels, and of all its rows."""

    def __init__(self, before: Tensor, keep: Callable[[Tensor, Tensor, int], None]) -> None:
        """before (rows, width, channels of all convolutions); keep(joined (rows, width + T, C), target, width) copies
        each row's last `width` frames to target (rows, width, C)."""
        self.after = torch.empty_like(before)
        self._before = before
        self._keep = keep
        self.rewind()

    def rewind(self) -> None:
        self._first = 0

    def next(self, width: int) -> Tail:
        """Those of the next convolution."""
        return _RowTail(self, width)

    def extend(self, x: Tensor, width: int) -> Tensor:
        channels = slice(self._first, self._first + x.shape[2])
        joined = torch.cat((self._before[:, :, channels], x), dim=1)
        self._keep(joined, self.after[:, :, channels], width)
        self._first = channels.stop
        return joined


class _RowTail:
    def __init__(self, tails: RowTails, width: int) -> None:
        self._tails = tails
        self._width = width

    def extend(self, x: Tensor) -> Tensor:
        return self._tails.extend(x, self._width)


class BatchAttention:
    """One attention layer's caches of all streams."""

    def __init__(self, batch: StepBatch, number: int) -> None:
        self._batch = batch
        self._number = number

    def attend(self, layer: AttentionLayer, x: Tensor) -> Tensor:
        batch = self._batch
        form = batch.memory.form
        projected = project(form, layer, x)
        queries = projected.queries.split_with_sizes(batch.sizes)
        kept = zip(*(tensor.split_with_sizes(batch.sizes) for tensor in projected.kept), strict=True)
        out = torch.empty_like(projected.queries)
        results = out.split_with_sizes(batch.sizes)
        for part, read, mask, asking, new, result in zip(
            batch.parts, batch.read, batch.masks, queries, kept, results, strict=True
        ):
            own = tuple(tensor[:, :, : part.frames] for tensor in new)
            pieces = self._pieces(part, read, own)
            if mask is not None:
                # One row of queries may hold those of several heads.
                mask = mask.repeat(asking.shape[2] // x.shape[1], 1)
            result.copy_(attend(asking, pieces, batch.scale, mask))
        return finish(form, layer, out)

    def _pieces(self, part: Part, read: Sequence[Run], own: tuple[Tensor, ...]) -> list[Piece]:
        """What the part's queries read; writes what is to be kept."""
        memory = self._batch.memory
        stored = memory.kept(part.step, self._number)
        frames = memory.page_frames
        for number, page in enumerate(part.kept):
            for tensor, values in zip(stored, own, strict=True):
                begin = number * frames
                tensor[:, :, page * frames : (page + 1) * frames] = values[:, :, begin : begin + frames]
        pieces = [tuple(tensor[:, :, run.first * frames : run.stop * frames] for tensor in stored) for run in read]
        if not part.kept:
            pieces.append(own)
        return [(tensors[0], tensors[-1]) for tensors in pieces]


class StepBatch:
    """`LayerCaches` of one pass over several streams, all rows padded to the longest."""

    def __init__(self, memory: FlowMemory, parts: Sequence[Part], frames: int, scale: float) -> None:
        """`frames` of the pass's tensors; scale: of the attention's scores."""
        self.memory = memory
        self.parts = parts
        self.scale = scale
        self.sizes = [part.rows for part in parts]
        self.read = [runs((*part.past, *part.kept)) for part in parts]
        self.masks = [_padded(part.mask, frames) for part in parts]
        self._tails = RowTails(torch.cat([part.tails for part in parts]), self._keep_tails)
        self._even = len({part.frames for part in parts}) == 1
        self.rewind()

    def rewind(self) -> None:
        self._tails.rewind()
        self._next_layer = 0

    def tail(self, width: int) -> Tail:
        return self._tails.next(width)

    def attention(self) -> BatchAttention:
        self._next_layer += 1
        return BatchAttention(self, self._next_layer - 1)

    def tails_after(self) -> list[Tensor]:
        """Of each part, in memory of its own; only after the whole pass."""
        return [tails.clone() for tails in self._tails.after.split_with_sizes(self.sizes)]

    def _keep_tails(self, joined: Tensor, target: Tensor, width: int) -> None:
        if self._even:
            frames = self.parts[0].frames
            target.copy_(joined[:, frames : frames + width])
            return
        for part, rows, mine in zip(
            self.parts, joined.split_with_sizes(self.sizes), target.split_with_sizes(self.sizes), strict=True
        ):
            mine.copy_(rows[:, part.frames : part.frames + width])


def _padded(mask: Tensor | None, frames: int) -> Tensor | None:
    """A mask for queries that are padded to `frames`; what padding sees is of no concern, but it must see something."""
    return None if mask is None else F.pad(mask, (0, 0, 0, frames - mask.shape[0]), value=True)
