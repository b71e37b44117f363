"""Charts of a data card: what became of each source, how long documents are, what reading again is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from havoc_report.axes import (
    FAINT,
    MUTED,
    Entry,
    Scale,
    axis_text,
    covering_ticks,
    grid_line,
    heading,
    legend,
    spoken_name,
)
from havoc_report.drawing import Box, Label, Mark, Stroke, draw, fit, text_width
from havoc_report.page import Svg
from havoc_report.plots import WIDE_PX
from havoc_report.tables import share_of


@dataclass(frozen=True)
class Kind:
    """A kind of piece that several stacked bars have: its name in the legend and its colour."""

    name: str
    tone: int


@dataclass(frozen=True)
class StackedRow:
    """A bar that is cut into pieces: as many values as there are kinds, none of them negative."""

    name: str
    values: tuple[float, ...]


def stacked_rows(
    rows: Sequence[StackedRow],
    kinds: Sequence[Kind],
    *,
    title: str,
    number: Callable[[float], str] = axis_text,
    width_px: int = WIDE_PX,
) -> Svg:
    """A bar a row, each as long as the chart and cut by its shares; the shares stand below it in numbers.

    Each row has its total on the right. Kinds that no row has are left out of the legend.

    Raises:
        ValueError: a row has more or fewer values than there are kinds.
    """
    for row in rows:
        if len(row.values) != len(kinds):
            raise ValueError(f"row {row.name!r}: {len(row.values)} values for {len(kinds)} kinds")
    marks, top = heading(title, "", width_px)
    met = [kind for place, kind in enumerate(kinds) if any(row.values[place] > 0 for row in rows)]
    if met:
        swatches, top = legend([Entry(kind.name, kind.tone, box=True) for kind in met], top, width_px)
        marks += swatches
    y = top + 10
    spoken = []
    for row in rows:
        total = sum(row.values)
        text = number(total)
        marks.append(Label(0, y, fit(row.name, width_px - text_width(text) - 16), bold=True))
        marks.append(Label(width_px, y, text, anchor="right", opacity=0.9))
        marks += _pieces(row, kinds, y + 8, width_px)
        said = [
            f"{share_of(value, total)} {kind.name}" for value, kind in zip(row.values, kinds, strict=True) if value > 0
        ]
        spoken.append(f"{row.name} {text}: {', '.join(said)}")
        y += 48
        for line in _broken(said, width_px):
            marks.append(Label(0, y, line, size=11.0, opacity=MUTED))
            y += 16
        y += 18
    if not rows:
        marks.append(Label(width_px / 2, y + 8, "nothing to draw", anchor="center", opacity=MUTED))
        y += 34
    return draw(marks, width=width_px, height=y - 18, label=spoken_name(title, spoken))


def _pieces(row: StackedRow, kinds: Sequence[Kind], y: float, width: float) -> list[Mark]:
    total, at, marks = sum(row.values), 0.0, list[Mark]()
    for value, kind in zip(row.values, kinds, strict=True):
        if value > 0:
            part = value / total * width
            # One unit of air between the pieces: neighbours stay apart without colour. A sliver keeps a hair.
            marks.append(Box(min(at, width - 1.0), y, max(1.0, part - 1), 22, kind.tone))
            at += part
    return marks or [Stroke([0, width], [y + 11, y + 11], opacity=FAINT * 2)]


def _broken(pieces: Sequence[str], width: float) -> list[str]:
    """Pieces with dots between them, on as many lines as they need."""
    lines: list[str] = []
    for piece in pieces:
        longer = f"{lines[-1]}  ·  {piece}" if lines else piece
        if lines and text_width(longer, size=11.0) <= width:
            lines[-1] = longer
        else:
            lines.append(fit(piece, width, size=11.0))
    return lines


@dataclass(frozen=True)
class Layer:
    """Counts of one source, one a column; the layers of a histogram are stacked."""

    name: str
    counts: tuple[int, ...]
    tone: int


@dataclass(frozen=True)
class Columns:
    """The columns of a histogram: the text under each of their boundaries, one more than columns; "" for none."""

    boundaries: tuple[str, ...]
    label: str


def histogram(layers: Sequence[Layer], columns: Columns, *, y_label: str, title: str, width_px: int = WIDE_PX) -> Svg:
    """Columns of equal width that touch, those of several layers on top of each other.

    Raises:
        ValueError: a layer has more or fewer counts than there are columns.
    """
    num_columns = len(columns.boundaries) - 1
    for layer in layers:
        if len(layer.counts) != num_columns:
            raise ValueError(f"layer {layer.name!r}: {len(layer.counts)} counts for {num_columns} columns")
    marks, top = heading(title, y_label, width_px)
    if len(layers) > 1:
        swatches, top = legend([Entry(layer.name, layer.tone, box=True) for layer in layers], top, width_px)
        marks += swatches
    bottom = top + max(150.0, min(220.0, width_px * 0.36))
    totals = [sum(layer.counts[place] for layer in layers) for place in range(num_columns)]
    if not any(totals):
        marks.append(Stroke([0, width_px], [bottom, bottom], opacity=FAINT * 2))
        marks.append(Label(width_px / 2, (top + bottom) / 2, "nothing to draw", anchor="center", opacity=MUTED))
        return draw(marks, width=width_px, height=bottom + 12, label=spoken_name(title, []))
    ticks = [tick for tick in covering_ticks([0.0, float(max(totals))]) if float(tick).is_integer() and tick >= 0]
    left = 10 + max(text_width(axis_text(tick)) for tick in ticks)
    across, up = Scale(0, num_columns, left, width_px - 12), Scale(0, max(ticks[-1], max(totals)), bottom, top)
    for tick in ticks:
        marks += grid_line(left, up(tick), width_px, axis_text(tick))
    for place in range(num_columns):
        base = 0
        for layer in layers:
            height = layer.counts[place]
            if height:
                low, high = up(base), up(base + height)
                width = across(place + 1) - across(place) - 1
                marks.append(Box(across(place), high, width, max(0.75, low - high), layer.tone))
            base += height
    for place, text in enumerate(columns.boundaries):
        if text:
            at = across(place)
            marks.append(Stroke([at, at], [bottom, bottom + 4], opacity=0.5))
            marks.append(Label(at, bottom + 18, text, anchor="center", opacity=MUTED))
    marks.append(Label(width_px - 10, bottom + 36, columns.label, anchor="right", opacity=MUTED))
    spoken = [f"{layer.name}: {sum(layer.counts)}" for layer in layers]
    return draw(marks, width=width_px, height=bottom + 44, label=spoken_name(title, spoken))
