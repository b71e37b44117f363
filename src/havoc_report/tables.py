"""Tables, and numbers as a reader wants them: thousands separated, as many digits as mean something."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from havoc_report.escaping import escape

Cell = str | int | float | None
"""What may stand in a table. None is shown as a dash: not measured."""
Format = Callable[[float], str]
"""A number -> its text. Never called for text, None or what is not finite."""

NOTHING = "–"
_MINUS = "\u2212"
_GLUE = "\u00a0"  # a number and its unit stay on one line
_SIZES = ("bytes", "KiB", "MiB", "GiB", "TiB")


def count(value: float) -> str:
    """A whole number with thousands separated: 1,234,567."""
    return f"{value:,.0f}".replace("-", _MINUS)


def significant(value: float, *, digits: int = 3) -> str:
    """`digits` significant digits, thousands separated: 1,230; 1.23; 0.000123; 1.23e-7."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if exponent < -5 or exponent > 14:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(power)}".replace("-", _MINUS)
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}".replace("-", _MINUS)


def fixed(decimals: int) -> Format:
    """A format with as many decimals in every row, so that the points stand below each other."""
    return lambda value: f"{value:,.{decimals}f}".replace("-", _MINUS)


def percent(value: float) -> str:
    """A fraction as per cent with one decimal: 0.314 is 31.4 %."""
    return f"{100 * value:,.1f}{_GLUE}%".replace("-", _MINUS)


def share_of(part: float, whole: float) -> str:
    """`part` of `whole` as per cent: what is there never reads as nothing, what is not all never as everything."""
    share = part / whole if whole > 0 else 0.0
    if 0 < share < 0.0005:
        return f"under 0.1{_GLUE}%"
    if share >= 0.9995 and part < whole:
        return f"over 99.9{_GLUE}%"
    return percent(share)


def data_size(value: float) -> str:
    """Bytes in the largest binary unit that leaves at least 1: 1.50 MiB."""
    size, unit = float(value), 0
    while abs(size) >= 1024 and unit < len(_SIZES) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count(size) if unit == 0 else significant(size)}{_GLUE}{_SIZES[unit]}"


def duration(value: float) -> str:
    """Seconds as a person says them: 0.42 s, 12.3 s, 5 min 12 s, 3 h 05 min."""
    if abs(value) < 60:
        return f"{significant(value, digits=2 if abs(value) < 1 else 3)}{_GLUE}s"
    seconds = round(value)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s".replace(" ", _GLUE)
    return f"{seconds // 3600:,} h {seconds % 3600 // 60:02d} min".replace(" ", _GLUE)


def cell_text(value: Cell, form: Format = significant) -> str:
    """A cell as text: text as it is, None as a dash, NaN and infinity by name, numbers by `form`."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else f"{_MINUS}∞"
    return form(value)


@dataclass(frozen=True)
class Column:
    """A column: its name, the side its cells lean to, and how its numbers are written."""

    name: str
    align: Literal["left", "right"] = "left"
    format: Format = significant


@dataclass(frozen=True)
class Table:
    """A table with a caption. The first column names its row.

    Args:
        caption: what the table shows, as a sentence.
        columns: at least one.
        rows: as many cells in each as there are columns.
        strong_rows: positions of rows set in bold, such as a total.

    Raises:
        ValueError: a row is longer or shorter than the columns.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    strong_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns: {row!r}")

    def html(self) -> str:
        """A <table> in a box that scrolls sideways on a narrow screen, also by keyboard."""
        heads = "".join(f'<th scope="col" class="{c.align}">{escape(c.name)}</th>' for c in self.columns)
        rows = "".join(self._row(row, strong=number in self.strong_rows) for number, row in enumerate(self.rows))
        caption = escape(self.caption)
        kind = ' class="dense"' if len(self.columns) > 7 else ""
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}">'
            f"<table{kind}><caption><span>{caption}</span></caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        )

    def _row(self, row: tuple[Cell, ...], *, strong: bool) -> str:
        cells = []
        for position, (value, column) in enumerate(zip(row, self.columns, strict=True)):
            text = escape(cell_text(value, column.format))
            name, scope = ("th", ' scope="row"') if position == 0 else ("td", "")
            cells.append(f'<{name}{scope} class="{column.align}">{text}</{name}>')
        start = '<tr class="strong">' if strong else "<tr>"
        return f"{start}{''.join(cells)}</tr>"
