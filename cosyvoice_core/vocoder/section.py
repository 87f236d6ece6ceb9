"""Ranges of a signal, and convolutions that compute only the range asked for.

A window of an utterance is decoded for the sake of its middle; the margins are there only because convolutions
look sideways. Asking every layer for no more than the layers after it need keeps the price of the margins low.
Rows of a batch may end before the batch does. Beyond its end every layer must see zeros, at that layer's own rate,
or the row would hear of its padding: `Extent` carries the ends from rate to rate, and each layer clears behind them.
Knows no network: `hift.py` says which ranges it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Positions start, start+1, ..., stop-1 of a signal."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if self.stop < self.start:
            raise ValueError(f"a span cannot end before it starts, got [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start

    def grown(self, left: int, right: int | None = None) -> Span:
        """The span with `left` more positions before it and `right` (default: as many) after it."""
        return Span(self.start - left, self.stop + (left if right is None else right))

    def clipped(self, total: int) -> Span:
        """The part of the span inside [0, total)."""
        return Span(min(max(self.start, 0), total), min(max(self.stop, 0), total))


@dataclass(frozen=True, slots=True)
class Extent:
    """How long a signal is: zero before position 0 and from `most` on, whatever the row of the batch.

    Row b may end earlier, at ends[b] (B,) int64; no row ends before `least`. Without `ends` all rows end at `most`.
    """

    most: int
    least: int
    ends: Tensor | None = None

    @classmethod
    def even(cls, most: int) -> Extent:
        """All rows as long as the batch."""
        return cls(most, most)

    def scaled(self, rate: int, more: int = 0) -> Extent:
        """The same signal at `rate` times as many positions, and `more` of them in front."""
        ends = None if self.ends is None else self.ends * rate + more
        return Extent(self.most * rate + more, self.least * rate + more, ends)

    def without(self, front: int) -> Extent:
        """The same signal without its first `front` positions."""
        ends = None if self.ends is None else self.ends - front
        return Extent(self.most - front, self.least - front, ends)

    def behind(self, span: Span) -> Tensor:
        """Which positions (B, len(span)) lie behind the end of their row, or (1, len(span)) if all rows end at once."""
        ends = self.ends
        positions = torch.arange(span.start, span.stop, device=None if ends is None else ends.device)
        return positions[None] >= (self.most if ends is None else ends[:, None])

    def clear(self, values: Tensor, span: Span) -> Tensor:
        """`values` (B, C, len(span)), those of the positions `span`, zeroed in place behind the end of each row."""
        tail = Span(max(self.least, span.start), max(self.least, span.stop))
        if self.ends is not None and len(tail):
            part = values.narrow(-1, tail.start - span.start, len(tail))
            part.masked_fill_(self.behind(tail).unsqueeze(1), 0.0)
        return values


@dataclass(frozen=True, slots=True)
class Section:
    """The values (B, C, len(span)) of a signal at the positions `span`; behind the end of a row they are zero."""

    values: Tensor
    span: Span
    extent: Extent

    def crop(self, span: Span) -> Tensor:
        """A view (B, C, len(span)) of part of the section."""
        if span.start < self.span.start or span.stop > self.span.stop:
            raise ValueError(f"{span} was asked of a section that holds {self.span}")
        return self.values.narrow(-1, span.start - self.span.start, len(span))


class CentredConv(nn.Conv1d):
    """Convolution of odd kernel and stride 1 over a section, zero-padded beyond the ends of the whole signal."""

    def __init__(self, inner: int, outer: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(inner, outer, kernel, dilation=dilation)

    @property
    def reach(self) -> int:
        """Positions one output looks at on either side."""
        return self.kernel_size[0] // 2 * self.dilation[0]

    def at(self, x: Section, need: Span) -> Section:
        """The output at the positions `need` of the signal; x must hold them and `reach` more on both sides."""
        need = need.clipped(x.extent.most)
        wanted = need.grown(self.reach)
        inside = wanted.clipped(x.extent.most)
        left, right = inside.start - wanted.start, wanted.stop - inside.stop
        values, both = x.crop(inside), min(left, right)
        if left != right:
            values = F.pad(values, (left - both, right - both))
        output = F.conv1d(values, self.weight, self.bias, padding=both, dilation=self.dilation)
        return Section(x.extent.clear(output, need), need, x.extent)
