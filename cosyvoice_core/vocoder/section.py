"""Ranges of a signal, and convolutions that compute only the range asked for.

A window of an utterance is decoded for the sake of its middle; the margins are there only because convolutions
look sideways. Asking every layer for no more than the layers after it need keeps the price of the margins low.
Knows no network: `hift.py` says which ranges it needs.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class Section:
    """The values (B, C, len(span)) of a signal of `total` positions, which is zero before 0 and from `total` on."""

    values: Tensor
    span: Span
    total: int

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
        need = need.clipped(x.total)
        wanted = need.grown(self.reach)
        inside = wanted.clipped(x.total)
        left, right = inside.start - wanted.start, wanted.stop - inside.stop
        values, both = x.crop(inside), min(left, right)
        if left != right:
            values = F.pad(values, (left - both, right - both))
        return Section(F.conv1d(values, self.weight, self.bias, padding=both, dilation=self.dilation), need, x.total)
