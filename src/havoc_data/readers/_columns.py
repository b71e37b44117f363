"""Which column of a table is its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TEXT_COLUMNS = ("text", "content", "messages")
"""Names that are taken for the text, in this order, where none is set."""
LEAST_AVERAGE = 200
"""Average length, in characters, from which the only long column of a table is taken for its text."""


@dataclass(frozen=True)
class Choice:
    """What is read of a table."""

    text: int
    """Number of the column of the texts."""
    licence: int | None
    """Number of the column of the licences."""
    counts: tuple[tuple[str, int], ...] = ()
    """("column_guessed", 1) where the column was chosen by the length of its texts."""


def choose(
    names: Sequence[str], column: str | None, licence_column: str | None, averages: Mapping[int, float]
) -> Choice | str:
    """The columns to read, or why that cannot be said.

    Args:
        names: of the columns, in order.
        column: as set by the user, or None.
        licence_column: as set by the user, or None.
        averages: average length of the texts of each column that holds texts, by its number.
    """
    listed = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    for wanted, key in ((column, "column"), (licence_column, "licence_column")):
        if wanted is not None and wanted not in names:
            return f"there is no column '{wanted}'; it has {listed}. Set reader_options: {{table: {{{key}: ...}}}}"
    licence = names.index(licence_column) if licence_column is not None else None
    named = column or next((name for name in TEXT_COLUMNS if name in names), None)
    if named is not None:
        return Choice(names.index(named), licence)
    long = [number for number, average in averages.items() if average >= LEAST_AVERAGE and number != licence]
    if len(long) == 1:
        return Choice(long[0], licence, (("column_guessed", 1),))
    several = f"{len(long)} columns hold long texts" if long else "no column holds long texts"
    return (
        f"which column is the text? It has {listed}; none is called text, content or messages, and {several}. "
        "Set reader_options: {table: {column: ...}}"
    )
