"""Plain charts as SVG text: axes, lines, steps, dots, bars, a legend. Knows numbers and names, nothing of load tests.

Lines and text take the colour of the page around them, so that a chart reads on light and on dark ground alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 16, 56, 42

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis from `low` to `high`. names: positions that carry words instead of numbers."""

    label: str
    low: float
    high: float
    names: tuple[tuple[float, str], ...] = ()

    @classmethod
    def over(cls, label: str, values: Sequence[float]) -> Axis:
        """From 0 to a round number that all values lie below."""
        top = max((value for value in values if math.isfinite(value)), default=1.0)
        if top <= 0:
            return cls(label, 0.0, 1.0)
        step = _step(top)
        return cls(label, 0.0, math.ceil(top / step - 1e-9) * step)

    def ticks(self) -> list[tuple[float, str]]:
        if self.names:
            return list(self.names)
        step = _step(self.high - self.low)
        count = int((self.high - self.low) / step + 1e-9)
        return [(self.low + n * step, f"{self.low + n * step:.10g}") for n in range(count + 1)]


@dataclass(slots=True)
class Chart:
    """A chart that is drawn upon, part by part, and rendered at the end."""

    title: str
    x: Axis
    y: Axis
    height: int = HEIGHT
    left: int = _LEFT
    _parts: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str]] = field(default_factory=list)

    def line(self, points: Sequence[Point], color: str, name: str = "", *, dashed: bool = False) -> None:
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')
        self._name(name, color)

    def steps(self, points: Sequence[Point], color: str, name: str = "") -> None:
        """A line that holds each value until the next point."""
        held: list[Point] = []
        for x, y in points:
            if held:
                held.append((x, held[-1][1]))
            held.append((x, y))
        self.line(held, color, name)

    def dots(self, points: Sequence[Point], color: str, name: str = "") -> None:
        self._parts += [
            f'<circle cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3" fill="{color}"/>' for x, y in points
        ]
        if points:
            self._name(name, color)

    def whisker(self, x: float, low: float, high: float, color: str) -> None:
        """The range of uncertainty of a point."""
        at, top, bottom = self._x(x), self._y(min(high, self.y.high)), self._y(max(low, self.y.low))
        self._parts.append(f'<path d="M{at:.1f} {top:.1f}V{bottom:.1f}" stroke="{color}" stroke-width="1.2"/>')

    def bar(self, x0: float, x1: float, y: float, thickness: float, color: str, tip: str = "") -> None:
        """A horizontal bar around `y`; `tip` is shown when one points at it."""
        left, right = self._x(x0), self._x(x1)
        top, bottom = sorted((self._y(y - thickness / 2), self._y(y + thickness / 2)))
        told = f"<title>{escape(tip)}</title>" if tip else ""
        self._parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" height="{bottom - top:.1f}" '
            f'fill="{color}">{told}</rect>'
        )

    def shade(self, x0: float, x1: float, name: str) -> None:
        """A part of the x axis that stands apart."""
        left, right = self._x(x0), self._x(x1)
        self._parts.append(
            f'<rect x="{left:.1f}" y="{_TOP}" width="{max(right - left, 0):.1f}" height="{self._bottom - _TOP}" '
            f'fill="currentColor" opacity="0.08"><title>{escape(name)}</title></rect>'
        )
        self._parts.append(_text(left + 4, _TOP + 13, name, size=11, opacity=0.7))

    def mark_x(self, x: float, name: str) -> None:
        """A vertical line with words."""
        at = self._x(x)
        self._parts.append(f'<path d="M{at:.1f} {_TOP}V{self._bottom}" stroke="currentColor" stroke-dasharray="2 3"/>')
        self._parts.append(_text(at + 4, self._bottom - 6, name, size=11, opacity=0.8))

    def mark_y(self, y: float, name: str) -> None:
        """A horizontal line with words."""
        at = self._y(y)
        self._parts.append(
            f'<path d="M{self.left} {at:.1f}H{WIDTH - _RIGHT}" stroke="currentColor" stroke-dasharray="2 3"/>'
        )
        self._parts.append(_text(WIDTH - _RIGHT - 4, at - 5, name, size=11, anchor="end", opacity=0.8))

    def name(self, name: str, color: str) -> None:
        """An entry of the legend."""
        self._name(name, color)

    def render(self, *, standalone: bool = False) -> str:
        """An `<svg>` element; standalone: a file of its own, dark on white."""
        ground = f'<rect width="{WIDTH}" height="{self.height}" fill="white"/>' if standalone else ""
        attributes = ' xmlns="http://www.w3.org/2000/svg" color="#1a1a1a"' if standalone else ""
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" font-family="system-ui, sans-serif" '
            f'aria-label="{escape(self.title, quote=True)}"{attributes}>{ground}'
            f"{_text(self.left, 18, self.title, size=14, weight=600)}{self._legend_row()}{self._grid()}"
            f"{''.join(self._parts)}</svg>"
        )

    def _name(self, name: str, color: str) -> None:
        if name and (name, color) not in self._legend:
            self._legend.append((name, color))

    def _legend_row(self) -> str:
        parts, at = [], float(min(self.left, _LEFT))
        for name, color in self._legend:
            parts.append(f'<rect x="{at:.0f}" y="31" width="11" height="11" rx="2" fill="{color}"/>')
            parts.append(_text(at + 15, 41, name, size=12))
            at += 15 + 6.2 * len(name) + 10
        return "".join(parts)

    def _grid(self) -> str:
        parts = []
        for value, label in self.x.ticks():
            at = self._x(value)
            parts.append(f'<path d="M{at:.1f} {self._bottom}v4" stroke="currentColor"/>')
            parts.append(_text(at, self._bottom + 17, label, size=11, anchor="middle"))
        for value, label in self.y.ticks():
            at = self._y(value)
            if not self.y.names:
                parts.append(f'<path d="M{self.left} {at:.1f}H{WIDTH - _RIGHT}" stroke="currentColor" opacity="0.15"/>')
            parts.append(_text(self.left - 7, at + 4, label, size=11, anchor="end"))
        parts.append(
            f'<path d="M{self.left} {_TOP}V{self._bottom}H{WIDTH - _RIGHT}" stroke="currentColor" fill="none"/>'
        )
        middle = (self.left + WIDTH - _RIGHT) / 2
        parts.append(_text(middle, self.height - 8, self.x.label, size=12, anchor="middle"))
        if self.y.label:
            parts.append(
                f'<g transform="translate(14 {(_TOP + self._bottom) / 2:.0f}) rotate(-90)">'
                f"{_text(0, 0, self.y.label, size=12, anchor='middle')}</g>"
            )
        return "".join(parts)

    @property
    def _bottom(self) -> int:
        return self.height - _BOTTOM

    def _x(self, value: float) -> float:
        share = (min(max(value, self.x.low), self.x.high) - self.x.low) / (self.x.high - self.x.low)
        return self.left + share * (WIDTH - _RIGHT - self.left)

    def _y(self, value: float) -> float:
        share = (min(max(value, self.y.low), self.y.high) - self.y.low) / (self.y.high - self.y.low)
        return self._bottom - share * (self._bottom - _TOP)


def _text(
    x: float, y: float, text: str, *, size: int, anchor: str = "start", weight: int = 400, opacity: float = 1.0
) -> str:
    faint = f' opacity="{opacity}"' if opacity < 1 else ""
    bold = f' font-weight="{weight}"' if weight != 400 else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="currentColor"{bold}{faint}>'
        f"{escape(text)}</text>"
    )


def _step(span: float) -> float:
    """A round distance that divides a span into four to ten."""
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
