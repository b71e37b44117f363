"""Charts as SVG elements: lines, bars with intervals, one bar cut into shares.

Every chart has its title and legend inside, carries its figures in its spoken name, and takes the colours
of the page. A series never depends on colour alone: it is dashed, marked, labelled or in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

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
from havoc_report.drawing import INK, Box, Dot, Label, Mark, Stroke, draw, fit, text_width
from havoc_report.escaping import one_line
from havoc_report.page import Svg
from havoc_report.tables import NOTHING, cell_text

WIDE_PX = 690
"""Width of a chart on a desk: the column of a page."""
NARROW_PX = 340
"""Width of a chart on a telephone."""


@dataclass(frozen=True)
class Series:
    """A line: x and y of the same length. What is not finite in either is a gap.

    Args:
        name: in the legend.
        x: in rising order.
        y: as many as x.
        dashed: a broken line.
        markers: a dot at each point.
        faint: a thin pale line, for raw values behind a smooth line.
        tone: which colour; None: the position among the series.

    Raises:
        ValueError: x and y differ in length.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    markers: bool = False
    faint: bool = False
    tone: int | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"series {self.name!r}: {len(self.x)} x for {len(self.y)} y")


@dataclass(frozen=True)
class Reference:
    """A value to compare with: a dashed line through a chart, or a tick across one bar."""

    name: str
    value: float


@dataclass(frozen=True)
class Bar:
    """A horizontal bar; `low` and `high` draw an interval, bars of one `group` stand under its name."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    tone: int = 0
    group: str = ""
    marks: tuple[Reference, ...] = ()


@dataclass(frozen=True)
class Share:
    """A piece of a whole; the value is not negative."""

    name: str
    value: float


def line_chart(
    series: Sequence[Series], *, x_label: str, y_label: str, title: str, log_x: bool = False, width_px: int = WIDE_PX
) -> Svg:
    """Lines over a common x axis.

    More than two points a pixel are thinned to the lowest and highest of each pixel's share, so that spikes
    and gaps stay. Nothing to draw gives an empty frame that says so. With `log_x`, x up to 0 is left out.
    """
    marks, top = heading(title, y_label, width_px)
    entries = [Entry(s.name, _tone(s, n), s.dashed, s.faint) for n, s in enumerate(series)]
    if len(series) > 1:
        swatches, top = legend(entries, top, width_px)
        marks += swatches
    bottom = top + max(170.0, min(260.0, width_px * 0.42))
    height = bottom + 44
    points = [(x, y) for s in series for x, y in zip(s.x, s.y, strict=True) if _shown(x, y, log_x)]
    if points:
        y_ticks = covering_ticks([y for _, y in points])
        left = 10 + max(text_width(axis_text(tick)) for tick in y_ticks)
        x_scale = _x_scale([x for x, _ in points], left + 4, width_px - 10, log_x)
        y_scale = Scale(y_ticks[0], y_ticks[-1], bottom, top)
        for tick in y_ticks:
            marks += grid_line(left, y_scale(tick), width_px, axis_text(tick))
        for tick in _x_ticks(x_scale, width_px):
            marks.append(Label(x_scale(tick), bottom + 18, axis_text(tick), anchor="center", opacity=MUTED))
        for number, one in enumerate(series):
            marks += _series_marks(one, _tone(one, number), x_scale, y_scale)
    else:
        marks.append(Stroke([0, width_px], [bottom, bottom], opacity=FAINT * 2))
        marks.append(Label(width_px / 2, (top + bottom) / 2, "nothing to draw", anchor="center", opacity=MUTED))
    marks.append(Label(width_px - 10, bottom + 36, x_label, anchor="right", opacity=MUTED))
    return draw(marks, width=width_px, height=height, label=spoken_name(title, [_spoken_series(s) for s in series]))


def bar_chart(
    bars: Sequence[Bar],
    *,
    x_label: str,
    title: str,
    references: Sequence[Reference] = (),
    number: Callable[[float], str] = axis_text,
    width_px: int = WIDE_PX,
) -> Svg:
    """Horizontal bars from zero, each with its value beside it, in the order given. None is a dash."""
    marks, top = heading(title, x_label, width_px)
    names = list(dict.fromkeys(mark.name for bar in bars for mark in bar.marks))
    entries = [Entry(r.name, INK, dashed=True) for r in references] + [Entry(name, INK) for name in names]
    if entries:
        swatches, top = legend(entries, top, width_px)
        marks += swatches
        top += 4
    left = 12 + max((text_width(one_line(bar.name)) for bar in bars), default=0.0)
    above = left > 0.4 * width_px  # names that would leave too little room stand above their bars
    left = 0.0 if above else left
    rows, bottom = _bar_rows(bars, top, name_room=18.0 if above else 0.0)
    room = 8 + max((text_width(cell_text(bar.value, number)) for bar in bars), default=0.0)
    low, high = _reach(bars, references)
    scale = Scale(low, high if high > low else low + 1, left, width_px - room)
    heads, lines = _first_rows(rows), [scale(reference.value) for reference in references]
    for bar, y in rows:
        if bar.group and y in heads:
            marks.append(Label(0, y - 8 - (18 if above else 0), fit(bar.group, width_px), bold=True))
        marks += _bar_marks(bar, y, scale, cell_text(bar.value, number), lines)
    for reference in references:
        at = scale(reference.value)
        marks.append(Stroke([at, at], [top - 5, bottom - 3], dashed=True, width=1.6, opacity=0.85))
    if not bars:
        marks.append(Label(width_px / 2, bottom + 12, "nothing to draw", anchor="center", opacity=MUTED))
    spoken = [_spoken_bar(bar, number) for bar in bars]
    spoken += [f"{r.name} {cell_text(r.value, number)}" for r in references]
    return draw(marks, width=width_px, height=bottom + (6 if bars else 28), label=spoken_name(title, spoken))


def stacked_bar(
    shares: Sequence[Share], *, title: str, number: Callable[[float], str] = axis_text, width_px: int = WIDE_PX
) -> Svg:
    """One bar for the whole, cut into its shares, with a legend that gives value and per cent of each."""
    marks, top = heading(title, "", width_px)
    total = sum(share.value for share in shares if math.isfinite(share.value))
    at, spoken, y = 0.0, [], top + 50.0
    columns = 2 if width_px >= 600 else 1
    per_column = -(-len(shares) // columns)
    for position, share in enumerate(shares):
        part = share.value / total if total > 0 and math.isfinite(share.value) else 0.0
        # One unit of air between the pieces: neighbours stay apart without colour. A sliver keeps a hair.
        marks.append(Box(at, top, max(0.5, part * width_px - 1), 26, position))
        at += part * width_px
        column, row = divmod(position, per_column)
        x, right = column * width_px / columns, (column + 1) * width_px / columns - (24 if column + 1 < columns else 0)
        text, cent = cell_text(share.value, number), f"{100 * part:.1f} %"
        base = y + row * 22
        marks.append(Box(x, base - 9, 10, 10, position))
        marks.append(Label(x + 18, base, fit(share.name, right - x - 86 - text_width(text))))
        marks.append(Label(right - 60, base, text, anchor="right", opacity=0.9))
        marks.append(Label(right, base, cent, anchor="right", opacity=MUTED))
        spoken.append(f"{share.name} {text}, {cent}")
    if not shares:
        marks.append(Label(width_px / 2, top + 18, "nothing to draw", anchor="center", opacity=MUTED))
    height = y + per_column * 22 - 10 if shares else top + 30
    return draw(marks, width=width_px, height=height, label=spoken_name(title, spoken))


def _reach(bars: Sequence[Bar], references: Sequence[Reference]) -> tuple[float, float]:
    """Lowest and highest of zero and everything that is drawn."""
    values = [v for bar in bars for v in (bar.value, bar.low, bar.high, *(mark.value for mark in bar.marks))]
    values += [reference.value for reference in references]
    finite = [0.0, *(value for value in values if value is not None and math.isfinite(value))]
    return min(finite), max(finite)


def _shown(x: float, y: float, log_x: bool) -> bool:
    return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x)


def _tone(series: Series, position: int) -> int:
    return position if series.tone is None else series.tone


def _spoken_series(series: Series) -> str:
    shown = [y for x, y in zip(series.x, series.y, strict=True) if _shown(x, y, log_x=False)]
    return f"{series.name}: from {shown[0]:.4g} to {shown[-1]:.4g}" if shown else f"{series.name}: no values"


def _spoken_bar(bar: Bar, number: Callable[[float], str]) -> str:
    said = f"{bar.group} {bar.name} {cell_text(bar.value, number)}".strip()
    return said if bar.low is None else f"{said} ({cell_text(bar.low, number)} to {cell_text(bar.high, number)})"


def _x_scale(values: Sequence[float], start: float, end: float, log: bool) -> Scale:
    low, high = min(values), max(values)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
    return Scale(low, high, start, end, log)


def _x_ticks(scale: Scale, width: float) -> list[float]:
    if scale.log:
        decades = range(math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high)) + 1)
        steps = (1, 2, 5) if len(decades) <= 4 else (1,)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
    else:
        bins = 4 if width < 500 else 8
        ticks = list(MaxNLocator(nbins=bins, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high))
    return [float(tick) for tick in ticks if scale.low <= tick <= scale.high]


def _series_marks(series: Series, tone: int, x_scale: Scale, y_scale: Scale) -> list[Mark]:
    x, y = [x_scale(value) for value in series.x], [y_scale(value) for value in series.y]
    gap = [math.isnan(a) or math.isnan(b) for a, b in zip(x, y, strict=True)]
    # A point between two gaps has no line to be seen by, so it gets a dot.
    alone = [not gap[i] and (i == 0 or gap[i - 1]) and (i == len(gap) - 1 or gap[i + 1]) for i in range(len(gap))]
    dots = [i for i in range(len(gap)) if alone[i] or (series.markers and not gap[i])]
    kept = _thinned(y, gap, limit=2 * int(abs(x_scale.end - x_scale.start)))
    width, opacity = (1.0, 0.4) if series.faint else (2.0, 1.0)
    line = Stroke(
        [math.nan if gap[i] else x[i] for i in kept],
        [math.nan if gap[i] else y[i] for i in kept],
        tone,
        width,
        series.dashed,
        opacity,
    )
    return [line, *(Dot(x[i], y[i], tone, opacity=opacity) for i in dots)]


def _thinned(y: Sequence[float], gap: Sequence[bool], *, limit: int) -> list[int]:
    """Positions to draw: all, or of each run of neighbours the lowest, the highest and one gap if there is one."""
    if len(y) <= limit:
        return list(range(len(y)))
    runs, kept = limit // 2, []
    for run in range(runs):
        positions = range(run * len(y) // runs, (run + 1) * len(y) // runs)
        finite = [i for i in positions if not gap[i]]
        chosen = {min(finite, key=lambda i: y[i]), max(finite, key=lambda i: y[i])} if finite else set()
        kept += sorted(chosen | set([i for i in positions if gap[i]][:1]))
    return kept


def _bar_rows(bars: Sequence[Bar], top: float, *, name_room: float) -> tuple[list[tuple[Bar, float]], float]:
    """The upper edge of each bar and the y below them; `name_room` is left above a bar, more above a group."""
    rows: list[tuple[Bar, float]] = []
    y, group = top, ""
    for bar in bars:
        if bar.group and bar.group != group:
            y += 32 if rows else 18
        group = bar.group
        rows.append((bar, y + name_room))
        y += 22 + name_room
    return rows, y


def _first_rows(rows: Sequence[tuple[Bar, float]]) -> set[float]:
    """Upper edges of the bars that begin a group."""
    before = ["", *(bar.group for bar, _ in rows)]
    return {y for (bar, y), group in zip(rows, before, strict=False) if bar.group != group}


def _bar_marks(bar: Bar, y: float, scale: Scale, text: str, lines: Sequence[float]) -> list[Mark]:
    """One bar with all that belongs to it; `lines` are the x that its value must not be written across."""
    marks: list[Mark] = [
        Label(0, y + 11.5, bar.name, opacity=0.9)
        if scale.start > 0
        else Label(0, y - 5, fit(bar.name, scale.end), opacity=0.9)
    ]
    zero, end = scale(0.0), scale(0.0)
    if bar.value is not None and math.isfinite(bar.value):
        end = scale(bar.value)
        marks.append(Box(min(zero, end), y, max(0.5, abs(end - zero)), 14, bar.tone, opacity=0.7))
    ticks = [scale(mark.value) for mark in bar.marks]
    marks += [Stroke([at, at], [y - 3, y + 17], width=2, opacity=0.85) for at in ticks]
    if bar.low is not None and bar.high is not None and math.isfinite(bar.low + bar.high):
        low, high, middle = scale(bar.low), scale(bar.high), y + 7
        marks.append(Stroke([low, high], [middle, middle], width=1.4, opacity=0.9))
        marks += [Stroke([at, at], [middle - 4, middle + 4], width=1.4, opacity=0.9) for at in (low, high)]
        end = max(end, high)
    end = max(zero, end)
    for at in sorted([*lines, *ticks]):
        if end - 2 <= at <= end + 8 + text_width(text):
            end = at
    marks.append(Label(end + 6, y + 11.5, text, opacity=0.9 if text != NOTHING else MUTED))
    return marks
