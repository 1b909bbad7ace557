"""
A chart on logarithmic axes, as SVG: several lines, a dot for each round, labels with units.

Colours follow the reader's choice of a light or a dark screen; nothing in it is a script.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 460
HEIGHT: Final = 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 62, 46
_TICKS_MAX: Final = 9
"""Decades with a label each; of more, every second one."""

_STYLE: Final = """
svg { font: 12px system-ui, sans-serif; background: #fcfcfb; }
text { fill: #52514e; } .title { fill: #0b0b0b; font-weight: 600; font-size: 13px; }
.grid { stroke: #e4e3df; stroke-width: 1; } .axis { stroke: #b5b3ac; stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.thin { stroke-width: 1.5; stroke-dasharray: 2 4; }
.c0 { stroke: #2a78d6; fill: #2a78d6; } .c1 { stroke: #d9541e; fill: #d9541e; }
.c2 { stroke: #00803a; fill: #00803a; } .c3 { stroke: #6a4bc4; fill: #6a4bc4; }
.dot { stroke: none; fill-opacity: 0.55; } .line { fill: none; } .p99 { stroke: #8a8880; }
@media (prefers-color-scheme: dark) {
svg { background: #1a1a19; } text { fill: #c3c2b7; } .title { fill: #ffffff; }
.grid { stroke: #32312f; } .axis { stroke: #5e5c57; }
.c0 { stroke: #4f9bf0; fill: #4f9bf0; } .c1 { stroke: #f08152; fill: #f08152; }
.c2 { stroke: #37b46c; fill: #37b46c; } .c3 { stroke: #a48bf0; fill: #a48bf0; }
.dot { stroke: none; } .line { fill: none; } }
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that is drawn: for each x what each round found; all above 0."""

    name: str
    values: Sequence[tuple[float, Sequence[float]]]
    thin: Sequence[tuple[float, Sequence[float]]] = ()
    """The same thing's worse side, such as its p99; dotted, without dots for the rounds."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart; at most four lines."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(line.values for line in self.lines)


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis: from a value to another, drawn from a place to another."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the values that get a label: powers of ten, or 1-2-5 of few decades."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        factors = (1, 2, 5) if math.log10(self.high / self.low) < 2 else (1,)
        step = 1 + (last - first) // _TICKS_MAX
        marks = [f * 10.0**e for e in range(first, last + 1, step) for f in factors]
        return [mark for mark in marks if self.low * 0.999 <= mark <= self.high * 1.001]


def draw(panels: Sequence[Panel]) -> str:
    """Return an SVG of some charts beside each other."""
    drawn = [panel for panel in panels if not panel.is_empty]
    width = WIDTH * max(1, len(drawn))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}"'
        f' viewBox="0 0 {width} {HEIGHT}" role="img"'
        f' aria-label="{escape("; ".join(panel.title for panel in drawn))}">',
        f"<style>{_STYLE}</style>",
    ]
    for number, panel in enumerate(drawn):
        parts.append(f'<g transform="translate({number * WIDTH},0)">')
        parts += _panel(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def short(value: float) -> str:
    """Return a number as an axis shows it: 20k, 1M, 0.5."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit * 0.999:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def _panel(panel: Panel) -> Iterator[str]:
    x_axis, y_axis = _axes(panel)
    yield f'<text class="title" x="{_LEFT}" y="20">{escape(panel.title)}</text>'
    yield from _legend(panel)
    yield from _frame(panel, x_axis, y_axis)
    for number, line in enumerate(panel.lines):
        yield from _curve(line, f"c{number}", x_axis, y_axis)


def _axes(panel: Panel) -> tuple[Axis, Axis]:
    points = [
        (x, y) for line in panel.lines for x, some in (*line.values, *line.thin) for y in some
    ]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = min(xs), max(xs)
    if low == high:
        low, high = low / 2, high * 2
    # At least a decade high: else noise fills the whole chart and looks like growth.
    middle, spread = math.sqrt(min(ys) * max(ys)), max(10.0, 1.3 * max(ys) / min(ys))
    half = math.sqrt(spread)
    return (
        Axis(low, high, _LEFT, WIDTH - _RIGHT),
        Axis(middle / half, middle * half, HEIGHT - _BOTTOM, _TOP),
    )


def _legend(panel: Panel) -> Iterator[str]:
    x = float(_LEFT)
    for number, line in enumerate(panel.lines):
        yield f'<line class="line c{number}" x1="{x}" x2="{x + 14}" y1="37" y2="37"/>'
        yield f'<text x="{x + 19}" y="41">{escape(line.name)}</text>'
        x += 34 + 7 * len(line.name)
    if any(line.thin for line in panel.lines):
        yield f'<line class="line thin p99" x1="{x}" x2="{x + 18}" y1="37" y2="37"/>'
        yield f'<text x="{x + 23}" y="41">p99</text>'


def _frame(panel: Panel, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for value in y_axis.ticks():
        y = y_axis.at(value)
        yield f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
    for value in x_axis.ticks():
        x = x_axis.at(value)
        yield f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{short(value)}</text>'
    yield f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>'
    middle = (_LEFT + right) / 2
    label = escape(panel.x_label)
    yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{label}</text>'
    upright = f'transform="translate(14,{(_TOP + bottom) / 2}) rotate(-90)"'
    yield f'<text {upright} text-anchor="middle">{escape(panel.y_label)}</text>'


def _curve(line: Line, kind: str, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    for values, extra in ((line.thin, " thin"), (line.values, "")):
        places = [
            f"{x_axis.at(x):.1f},{y_axis.at(statistics.median(some)):.1f}" for x, some in values
        ]
        if places:
            yield f'<polyline class="{kind} line{extra}" points="{" ".join(places)}"/>'
    for x, some in line.values:
        for y in some:
            place = f'cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}"'
            yield f'<circle class="{kind} dot" {place} r="3"/>'
