"""Tables with a column of texts: .csv and .tsv by Python's csv module, .parquet by pyarrow.

Rows are read one after another, in memory that does not grow with the file. A row with more or fewer fields than the
header, or with quotes that do not fit, is named and the others are kept. What looks like a formula ("=1+2") is text.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from havoc_core.config import Section
from havoc_data.document import Document, Rejected
from havoc_data.encoding import decode_whole
from havoc_data.inputs import Input, InputError
from havoc_data.readers._columns import Choice, choose
from havoc_data.readers._parquet import need_pyarrow, read_parquet
from havoc_data.readers._shares import share_out
from havoc_data.sections import cut_into_sections

FIELD_CHARACTERS = 32 * 2**20
"""Longest field and longest line. A quote that is never closed swallows no more than this; the csv module keeps four bytes
a character and copies as it grows, so that twice 128 MiB is what it costs."""
SAMPLE_BYTES = 64 * 1024
"""How much of a file is looked at to find its delimiter and its column."""
_DELIMITERS = ",;\t|"
_AGREEING = 0.8
"""Share of the first rows that must have as many fields as the header for a delimiter to be believed."""
_LINE_END = re.compile(rb"\r\n?|\n")
_BLOCK_BYTES = 2**20


class Options(Section):
    """Settings of the reader of tables."""

    column: str | None = None
    """Column of the texts, or in Parquet of the dialogs. null: "text", else "content", else "messages" (Parquet), else the
    only column whose texts are 200 characters long on average."""
    licence_column: str | None = None
    """Column of the SPDX name of each row's licence; null: there is none."""


def build(options: Options) -> TableReader:
    """The reader of tables. pyarrow is asked for when there are Parquet files, since .csv needs nothing."""
    return TableReader(options.column, options.licence_column)


@dataclass(frozen=True)
class TableReader:
    """Reads one table at a time. A `Reader`."""

    column: str | None
    """As in Options."""
    licence_column: str | None
    """As in Options."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Every table alone.

        Raises:
            MissingPackageError: there is a Parquet file and no pyarrow.
        """
        if any(_is_parquet(item) for item in items):
            need_pyarrow()
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """None: whether a line feed ends a row or stands in a quoted field can only be told from the beginning, and a
        Parquet file is described at its end."""
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """A document for each row, or several if its text is long. The header belongs to the first row.

        Raises:
            InputError: the file cannot be unpacked or read further; it is not UTF-8 and larger than
                `inputs.WHOLE_FILE_BYTES`.
            MissingPackageError: it is a Parquet file and there is no pyarrow.
        """
        (item,) = unit
        if _is_parquet(item):
            with item.open_seekable() as file:
                yield from read_parquet(file, item.origin, self.column, self.licence_column)
            return
        size, is_utf8, head = _looked_through(item)
        if not size:
            yield Rejected(item.origin, "it is empty", rule="no_text")
        elif is_utf8:
            with item.open() as file:
                yield from _sealed(
                    self._rows(item.origin, _utf8_lines(file), head.decode("utf-8", "ignore"), size), size
                )
        else:
            raw = item.read_all()
            try:
                text, counts = decode_whole(raw)
            except InputError as error:
                yield Rejected(item.origin, error.reason, size)
                return
            rows = self._rows(item.origin, _decoded_lines(text, raw), text[:SAMPLE_BYTES], size)
            yield from _counted(_sealed(rows, size), counts)

    def _rows(
        self, origin: str, lines: Iterator[tuple[str, int]], head: str, size: int
    ) -> Iterator[Document | Rejected]:
        """What the rows are; the last may end before the file does."""
        delimiter = _delimiter_of(head, origin)
        table = _Rows(lines, delimiter)
        header, reason = table.next_row()
        if not header:
            what = f"its header cannot be read ({reason})" if reason else "there is nothing in it but blank lines"
            yield Rejected(origin, what, size, rule="unreadable" if reason else "no_text")
            return
        names = [name.strip() for name in header]
        choice = choose(names, self.column, self.licence_column, _averages(head, delimiter, len(names)))
        if isinstance(choice, str):
            yield Rejected(origin, choice, size)
            return
        if names[choice.text] == "messages" and self.column is None:
            reason = "'messages' is the only column of text; dialogs are read from .jsonl and .parquet, not from .csv"
            yield Rejected(origin, reason, size)
            return
        yield from _documents(origin, table, len(names), choice)


def _is_parquet(item: Input) -> bool:
    return re.search(r"\.parquet(\.(gz|zst))?$", item.origin.lower()) is not None


def _looked_through(item: Input) -> tuple[int, bool, bytes]:
    """(size, whether all of it is UTF-8, its beginning); of a file that breaks off, as far as it goes."""
    size, is_utf8, head = 0, True, b""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with item.open() as file:
            for block in iter(lambda: file.read(_BLOCK_BYTES), b""):
                size += len(block)
                head = head or block[:SAMPLE_BYTES].removeprefix(codecs.BOM_UTF8)
                is_utf8 = is_utf8 and _takes(decoder, block)
    except InputError:
        return size, is_utf8, head  # it will come again, after the rows before that place
    return size, is_utf8 and _takes(decoder, b"", final=True) and b"\0" not in head, head


def _takes(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _utf8_lines(file: BinaryIO) -> Iterator[tuple[str, int]]:
    """(line with its end, its length in bytes); of a longer line than is read only the first part, then ""."""
    waiting, begin, searched = bytearray(), 0, 0
    first = True
    while True:
        block = file.read(_BLOCK_BYTES)
        waiting += block
        for found in _LINE_END.finditer(waiting, searched):
            if block and found.end() == len(waiting) and found[0] == b"\r":
                break  # a line feed may follow
            line = bytes(waiting[begin : found.end()])
            yield line.removeprefix(codecs.BOM_UTF8 if first else b"").decode("utf-8", "replace"), len(line)
            begin, first = found.end(), False
        del waiting[:begin]
        begin, searched = 0, max(0, len(waiting) - 1)
        if waiting and (not block or len(waiting) > 2 * FIELD_CHARACTERS):
            line = bytes(waiting)
            yield line.removeprefix(codecs.BOM_UTF8 if first else b"").decode("utf-8", "replace"), len(line)
            waiting.clear()
            searched, first = 0, False
        if not block:
            return


def _decoded_lines(text: str, raw: bytes) -> Iterator[tuple[str, int]]:
    """The same of a file that had to be decoded as a whole: exact where its lines and those of its bytes are as many."""
    lines = re.findall(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+", text)
    lengths = [len(line) for line in re.findall(rb"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+", raw)]
    if len(lines) != len(lengths):
        lengths = [end - start for start, end in share_out(0, len(raw), map(len, lines))]
    yield from zip(lines, lengths, strict=True)


class _Rows:
    """The rows of a file, each with its bytes."""

    def __init__(self, lines: Iterator[tuple[str, int]], delimiter: str) -> None:
        self.lines = lines
        self.place = 0
        self.reader = csv.reader(self._fed(), delimiter=delimiter, strict=True)

    def _fed(self) -> Iterator[str]:
        for line, length in self.lines:
            self.place += length
            yield line

    def next_row(self) -> tuple[list[str] | None, str]:
        """(fields, "") of the next row that is not blank, or ([], why it cannot be read); (None, "") at the end."""
        # The limit belongs to the whole process: it is put back at once.
        before = csv.field_size_limit(FIELD_CHARACTERS)
        try:
            row = next((row for row in self.reader if row), None)
        except csv.Error as error:
            return [], f"{error}; is a quote missing or never closed?"
        finally:
            csv.field_size_limit(before)
        return row, ""


def _documents(origin: str, table: _Rows, width: int, choice: Choice) -> Iterator[Document | Rejected]:
    start = ordinal = number = 0
    while True:
        row, reason = table.next_row()
        if row is None:
            break
        number, begin, start = number + 1, start, table.place
        rule, text = "unreadable", ""
        if not reason and len(row) != width:
            reason = f"{len(row)} fields, the header has {width}"
        elif not reason:
            text = row[choice.text].replace("\r\n", "\n").replace("\r", "\n")
            reason, rule = ("", "") if text.strip() else ("its text is empty", "no_text")
        if reason:
            yield Rejected(origin, f"row {number}: {reason}", start - begin, begin, rule)
            continue
        licence = row[choice.licence].strip() or None if choice.licence is not None else None
        # Most rows are short: 65,536 characters are never more than the 256 KiB that stay in one piece.
        sections = cut_into_sections(text) if len(text) > 65_536 else [(0, len(text))]
        shares = share_out(begin, start, [last - first for first, last in sections])
        for (first, last), (low, high) in zip(sections, shares, strict=True):
            counts = () if ordinal else choice.counts
            yield Document(
                origin, text[first:last], ordinal=ordinal, start=low, end=high, licence=licence, counts=counts
            )
            ordinal += 1
    if not number:
        yield Rejected(origin, "it has a header and no rows", table.place, rule="no_text")


def _sealed(items: Iterable[Document | Rejected], size: int) -> Iterator[Document | Rejected]:
    """The same, the last one stretched to the end of the file: blank lines at its end are nobody else's."""
    last: Document | Rejected | None = None
    try:
        for item in items:
            if last is not None:
                yield last
            last = item
    except InputError:
        if last is not None:
            yield last
        raise
    if isinstance(last, Document):
        yield replace(last, end=size)
    elif last is not None:
        yield replace(last, bytes=size - last.start)


def _counted(
    items: Iterable[Document | Rejected], counts: tuple[tuple[str, int], ...]
) -> Iterator[Document | Rejected]:
    """The same, with the counts of the whole file on the first document."""
    for item in items:
        if isinstance(item, Document) and counts:
            item, counts = replace(item, counts=(*item.counts, *counts)), ()
        yield item


def _sampled(head: str, delimiter: str) -> list[list[str]]:
    """The rows in the beginning of a file, the last perhaps cut off."""
    rows: list[list[str]] = []
    reader = csv.reader(head.splitlines(keepends=True), delimiter=delimiter)
    try:
        rows.extend(row for row in reader if row)
    except csv.Error:
        pass  # what was read before that tells enough
    return rows


def _delimiter_of(head: str, origin: str) -> str:
    """The delimiter that the name promises, unless the first rows agree on another one alone."""
    usual = "\t" if re.search(r"\.tsv(\.(gz|zst))?$", origin.lower()) else ","
    fitting = []
    for delimiter in _DELIMITERS:
        rows = _sampled(head, delimiter)
        width = len(rows[0]) if rows else 0
        whole = rows[1:-1] or rows[1:]
        if width > 1 and sum(len(row) == width for row in whole) >= _AGREEING * len(whole):
            fitting.append(delimiter)
    return fitting[0] if len(fitting) == 1 and usual not in fitting else usual


def _averages(head: str, delimiter: str, width: int) -> dict[int, float]:
    """Average length of the fields of each column in the beginning of the file."""
    rows = [row for row in _sampled(head, delimiter)[1:] if len(row) == width]
    return {number: sum(len(row[number]) for row in rows) / len(rows) for number in range(width)} if rows else {}
