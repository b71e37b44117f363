"""What every chart has: a title, a legend, a scale, grid lines, and a name that can be read aloud."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from havoc_report.drawing import Box, Label, Mark, Stroke, fit, text_width

FAINT, MUTED = 0.16, 0.72
"""Opacity of grid lines, of axis texts."""


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` -> SVG units from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where a value stands; NaN for what has no place, such as 0 on a logarithmic scale."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)


@dataclass(frozen=True)
class Entry:
    """A line of a legend; `box` fills the swatch, otherwise it is a stroke."""

    name: str
    tone: int
    dashed: bool = False
    faint: bool = False
    box: bool = False


def axis_text(value: float) -> str:
    """A number as short as an axis wants it: 0.0003, 2.5, 1,500, 20k, 1.5M."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if letter == 'k' else limit):.4g}{letter}".replace("-", "\u2212")
    return f"{value:,.6g}".replace("-", "\u2212")


def heading(title: str, y_label: str, width: float) -> tuple[list[Mark], float]:
    """Title and unit at the upper left, and the y below them."""
    marks: list[Mark] = [Label(0, 15, fit(title, width, size=14.5), size=14.5, bold=True)]
    if y_label:
        marks.append(Label(0, 34, fit(y_label, width), opacity=MUTED))
    return marks, 50.0 if y_label else 32.0


def legend(entries: Sequence[Entry], top: float, width: float) -> tuple[list[Mark], float]:
    """Swatches with names, broken into lines, and the y below them."""
    marks: list[Mark] = []
    x, y = 0.0, top + 4
    for entry in entries:
        name = fit(entry.name, width - 30)
        room = 16 if entry.box else 27
        taken = room + 1 + text_width(name) + 16
        if x > 0 and x + taken - 16 > width:
            x, y = 0.0, y + 19
        opacity = 0.4 if entry.faint else 1.0
        swatch: Mark = Stroke(
            [x, x + 20], [y - 4, y - 4], entry.tone, 1.3 if entry.faint else 2.2, entry.dashed, opacity
        )
        if entry.box:
            swatch = Box(x, y - 9, 10, 10, entry.tone, opacity)
        marks.append(swatch)
        marks.append(Label(x + room, y, name, opacity=0.9))
        x += taken
    return marks, y + 18


def covering_ticks(values: Sequence[float]) -> list[float]:
    """Round values from at or below the lowest to at or above the highest; from zero if that is not far."""
    low, high = min(values), max(values)
    if 0 < low < 0.8 * high:
        low = 0.0
    if low == high:
        low, high = low - max(abs(low) * 0.05, 0.5), high + max(abs(high) * 0.05, 0.5)
    return [float(tick) for tick in MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def grid_line(left: float, y: float, right: float, text: str) -> list[Mark]:
    """A faint line across the chart, with its value to the left of it."""
    return [
        Stroke([left, right], [y, y], opacity=FAINT),
        Label(left - 8, y + 4, text, anchor="right", opacity=MUTED),
    ]


def spoken_name(title: str, parts: Sequence[str]) -> str:
    """The chart in words, for those who hear the page."""
    return f"{title}. {'; '.join(parts)}" if parts else f"{title}. Nothing to draw."
