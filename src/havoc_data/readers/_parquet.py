"""Parquet: the rows of one column, read batch by batch through pyarrow.

Only the columns that are needed are read. A text has no bytes of its own in the file, so the batches share out the file
in proportion to their rows, and the rows of a batch its share in proportion to their text.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from havoc_core.errors import MissingPackageError
from havoc_data.document import Document, Rejected
from havoc_data.readers._columns import Choice, choose
from havoc_data.readers._shares import share_out
from havoc_data.sections import cut_into_sections

BATCH_ROWS = 512
"""Rows that are in memory at once. Part of the format of the result: it decides which bytes a row stands for."""
_ROLES = ("system", "user", "assistant")


def need_pyarrow() -> None:
    """Refuse to go on where pyarrow is missing.

    Raises:
        MissingPackageError: it cannot be imported.
    """
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingPackageError(
            "reading .parquet files",
            f"pyarrow cannot be imported ({error}).",
            "Install it: pip install 'havoc[formats]'.",
        ) from None


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    licence: str | None = None
    reason: str = ""
    """Why it is no document; "" if it is one."""
    rule: str = "unreadable"
    invalid: int = 0
    """Characters that are not UTF-8 and became U+FFFD."""

    @property
    def length(self) -> int:
        """How much of the file it stands for, in characters and one for itself."""
        return 1 + len(self.text) + sum(len(content) for _, content in self.messages)


def read_parquet(
    file: BinaryIO, origin: str, column: str | None, licence_column: str | None
) -> Iterator[Document | Rejected]:
    """The documents of a Parquet file, and the rows that are none.

    Args:
        file: seekable.
        origin: as in Document.
        column: of the texts or dialogs; None: see `_columns.choose`.
        licence_column: of SPDX names; None: there is none.
    """
    need_pyarrow()
    import pyarrow
    import pyarrow.parquet

    size, place = file.seek(0, 2), 0
    file.seek(0)
    numbers = _Numbers()
    try:
        table = pyarrow.parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        choice = _choice(table, column, licence_column)
        if isinstance(choice, str):
            yield Rejected(origin, choice, size)
            return
        total = table.metadata.num_rows
        for rows in _batches(table, choice):
            end = size * (numbers.row + len(rows)) // total
            yield from numbers.documents(origin, rows, (place, end), choice.counts)
            place = end
    # Damage shows itself as any of these, in the footer as well as in the middle of a page.
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        where = f"after row {numbers.row} " if numbers.row else ""
        yield Rejected(origin, f"it is no Parquet file, or damaged {where}({reason})", size - place, place)
        return
    if place < size or not numbers.row:
        yield Rejected(origin, "it has no rows", size - place, place, rule="no_text")


class _Numbers:
    """Counts rows and documents of one file."""

    def __init__(self) -> None:
        self.row = 0
        self.ordinal = 0

    def documents(
        self, origin: str, rows: list[Row], place: tuple[int, int], counts: tuple[tuple[str, int], ...]
    ) -> Iterator[Document | Rejected]:
        """What the rows are; they share out the bytes of `place`."""
        shares = share_out(*place, [row.length for row in rows])
        for row, (start, end) in zip(rows, shares, strict=True):
            self.row += 1
            if row.reason:
                yield Rejected(origin, f"row {self.row}: {row.reason}", end - start, start, row.rule)
                continue
            sections = cut_into_sections(row.text) or [(0, 0)]
            parts = share_out(start, end, [last - first for first, last in sections])
            for number, ((first, last), (begin, finish)) in enumerate(zip(sections, parts, strict=True)):
                counted = (*(counts if not self.ordinal else ()), *_invalid(row if not number else None))
                text = row.text[first:last]
                yield Document(
                    origin, text, row.messages, self.ordinal, begin, finish, licence=row.licence, counts=counted
                )
                self.ordinal += 1


def _invalid(row: Row | None) -> tuple[tuple[str, int], ...]:
    return (("invalid_bytes", row.invalid),) if row is not None and row.invalid else ()


def _choice(table: Any, column: str | None, licence_column: str | None) -> Choice | str:
    """The columns of a ParquetFile to read, or why that cannot be said."""
    import pyarrow.types as types

    schema = table.schema_arrow
    names = list(schema.names)
    texts = [number for number, field in enumerate(schema) if _is_text(types, field.type)]
    averages: dict[int, float] = {}
    if column is None and table.metadata.num_rows:
        columns = [names[number] for number in texts]
        batch: Any = next(table.iter_batches(BATCH_ROWS, row_groups=[0], columns=columns, use_threads=False), None)
        for number in texts if batch is not None else []:
            cells = _texts(batch.column(names[number]))
            averages[number] = sum(len(text or "") for text, _ in cells) / max(1, len(cells))
    choice = choose(names, column, licence_column, averages)
    if isinstance(choice, str):
        return choice
    kind = schema.field(choice.text).type
    if not _is_text(types, kind) and not types.is_list(kind) and not types.is_large_list(kind):
        return f"column '{names[choice.text]}' holds {kind}, neither text nor messages"
    if choice.licence is not None and not _is_text(types, schema.field(choice.licence).type):
        return f"column '{names[choice.licence]}' holds {schema.field(choice.licence).type}, not text"
    return choice


def _is_text(types: Any, kind: Any) -> bool:
    if types.is_dictionary(kind):
        kind = kind.value_type
    checks = (types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary)
    return any(check(kind) for check in checks)


def _batches(table: Any, choice: Choice) -> Iterator[list[Row]]:
    names = list(table.schema_arrow.names)
    wanted = [names[number] for number in sorted({choice.text, *([] if choice.licence is None else [choice.licence])})]
    for group in range(table.num_row_groups):
        for batch in table.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False):
            cells = batch.column(names[choice.text])
            licences: list[str | None] = [None] * len(cells)
            if choice.licence is not None:
                licences = [(text or "").strip() or None for text, _ in _texts(batch.column(names[choice.licence]))]
            dialog = "list" in str(cells.type)
            values = cells.to_pylist() if dialog else _texts(cells)
            make = _dialog_row if dialog else _text_row
            yield [make(value, licence) for value, licence in zip(values, licences, strict=True)]


def _texts(cells: Any) -> list[tuple[str | None, int]]:
    """(text or None, number of characters that were not UTF-8) of each cell. Parquet promises UTF-8 and does not check."""
    import pyarrow

    if pyarrow.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    texts: list[tuple[str | None, int]] = []
    for raw in cells.cast(pyarrow.large_binary()).to_pylist():
        try:
            texts.append((None if raw is None else raw.decode(), 0))
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "replace")
            texts.append((text, text.count("\ufffd")))
    return texts


def _text_row(value: tuple[str | None, int], licence: str | None) -> Row:
    text = (value[0] or "").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        return Row(reason="its text is empty", rule="no_text")
    return Row(text, licence=licence, invalid=value[1])


def _dialog_row(value: Any, licence: str | None) -> Row:
    """A list of {"role", "content"}; other keys are passed over."""
    pairs = []
    for number, message in enumerate(value or [], 1):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(role, str) or not isinstance(content, str):
            return Row(reason=f"message {number} lacks a 'role' or a 'content' that is a text")
        if role not in _ROLES:
            return Row(reason=f"message {number} has the role {role[:40]!r}; roles are {', '.join(_ROLES)}")
        pairs.append((role, content.replace("\r\n", "\n").replace("\r", "\n")))
    if not any(content.strip() for _, content in pairs):
        return Row(reason="its messages are empty", rule="no_text")
    return Row(messages=tuple(pairs), licence=licence)
