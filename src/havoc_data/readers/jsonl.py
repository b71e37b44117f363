"""One JSON object a line.

A row with `messages` (a list of {"role", "content"}) is a dialog; any other row is the text in its `text_field`. A row
may name its `licence`. Files are read line by line, so that memory does not grow with them. A row that cannot be used
is named with its line, and the rows around it are kept; so are the rows before the place where a compressed file
breaks off.

Every byte belongs to a row: blank lines to the row after them, the last ones to the row before. A long row is several
documents, which share out the bytes of its line in proportion to their lengths: inside a line the places are approximate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from havoc_core.config import Section
from havoc_data.document import Document, Rejected
from havoc_data.encoding import decode, mark_of, mend
from havoc_data.inputs import Input, InputError
from havoc_data.readers._file_encoding import FileEncoding
from havoc_data.readers._shares import share_out
from havoc_data.sections import cut_into_sections
from havoc_data.unpacking import READ_BYTES

ROLES = ("system", "user", "assistant")
"""Who can speak in a dialog."""
LINE_BYTES = 128 * 1024 * 1024
"""Longest line that is read; a longer one is passed over, and said so."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Options(Section):
    """Settings of this reader."""

    text_field: str = "text"
    """Key of the text in a row."""
    mend_encoding: bool = True
    """Find encodings other than UTF-8, and mend text that was decoded wrongly."""


def build(options: Options) -> JsonlReader:
    """The reader."""
    return JsonlReader(options.text_field, options.mend_encoding)


@dataclass(frozen=True)
class JsonlReader:
    """Reads rows. A `Reader`."""

    text_field: str
    """As in Options."""
    mend_encoding: bool
    """As in Options."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Each file alone."""
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """The end of the line; None for UTF-16 and UTF-32."""
        with item.open_seekable() as file:
            if mark_of(file.read(4))[1] != "utf-8":
                return None
            file.seek(near)
            position = near
            while block := file.read(READ_BYTES):
                found = block.find(b"\n")
                if found >= 0:
                    return position + found + 1
                position += len(block)
        return position

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """Every row as one document, or as several if its text is long.

        Ordinals begin at `start`, so that those of one file never meet. Counts: decoded_from_<encoding>,
        mended_characters.

        Raises:
            InputError: the data break off; names the last whole line.
        """
        item = unit[0]
        older = FileEncoding(item, wanted=self.mend_encoding)
        ordinal = since = position = item.start
        number = 0
        row: list[Document | Rejected] = []
        problem = None
        try:
            with item.open() as file:
                for line in _lines(iter(lambda: file.read(READ_BYTES), b""), at_top=item.start == 0):
                    start, number, position = position, number + 1, position + line.length
                    if line.text is not None and not line.text.strip():
                        continue
                    # A row is held back until the next begins, because blank lines at the end belong to the last one.
                    yield from row
                    made = self._row(line, older)
                    if isinstance(made, str):
                        where = f"line {number}" if item.start == 0 else f"line at byte {start:,}"
                        row = [Rejected(item.origin, f"{where}: {made}", position - since, since)]
                    else:
                        row = [*made.documents(item.origin, since, position, ordinal)]
                        ordinal += len(row)
                    since = position
        except InputError as error:
            # As it stands, without the blank lines after it: they go with what could not be unpacked.
            problem = InputError(f"{error.reason}, after line {number}; the rows before that are kept")
        if problem is None and position > since:
            row = _stretched(row, position) or [
                Rejected(item.origin, "white space only", position - since, since, "empty")
            ]
        yield from row
        if problem is not None:
            raise problem
        if position == item.start:
            yield Rejected(item.origin, "it is empty", start=item.start, rule="empty")

    def _row(self, line: _Line, older: FileEncoding) -> _Row | str:
        """What one row holds, or why it holds nothing."""
        if line.text is None:
            return f"a line of more than {LINE_BYTES // 2**20} MiB"
        try:
            text, counts = _decoded(line.text, older)
            values = json.loads(text)
        except UnicodeDecodeError as error:
            return f"byte {error.start + 1} of the line is not UTF-8{older.hint}"
        except json.JSONDecodeError as error:
            return f"no valid JSON ({error.msg.removesuffix(' at')} at character {error.colno})"
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits; a list 1,000 deep
            return f"JSON that cannot be read ({error})"
        made = self._content(values)
        if isinstance(made, str):
            return made
        if self.mend_encoding:
            mended = 0
            for number, (role, content) in enumerate(made):
                content, count = mend(content)
                mended += count
                made[number] = role, content
            if mended:
                counts = (*counts, ("mended_characters", mended))
        licence = values.get("licence", values.get("license"))
        return _Row(made, counts, licence if isinstance(licence, str) and licence.strip() else None)

    def _content(self, row: Any) -> list[tuple[str, str]] | str:
        """The messages of a row; of a plain text one with an empty role. Or why there is nothing."""
        if not isinstance(row, dict):
            return f"the line is {_json_name(row)}, not an object"
        if "messages" in row:
            return _dialog(row["messages"])
        if self.text_field not in row:
            keys = ", ".join(map(repr, list(row)[:8])) or "no key at all"
            return f"the row has no '{self.text_field}' and no 'messages'; it has {keys} (set options: text_field)"
        text = row[self.text_field]
        if not isinstance(text, str):
            return f"'{self.text_field}' is {_json_name(text)}, not a text"
        return [("", _clean(text))] if text.strip() else f"'{self.text_field}' is empty"


@dataclass(frozen=True)
class _Row:
    messages: list[tuple[str, str]]
    """(role, content); of a plain text one with an empty role."""
    counts: tuple[tuple[str, int], ...]
    licence: str | None

    def documents(self, origin: str, start: int, end: int, ordinal: int) -> list[Document]:
        """The row as documents that share out its bytes by the lengths of their texts."""
        role, text = self.messages[0]
        if role:
            messages = tuple(self.messages)
            return [Document(origin, "", messages, ordinal, start, end, self.licence, counts=self.counts)]
        texts = [text[first:last] for first, last in cut_into_sections(text)]
        return [
            Document(origin, section, (), ordinal + number, *place, self.licence, counts=() if number else self.counts)
            for number, (section, place) in enumerate(
                zip(texts, share_out(start, end, [len(each) for each in texts]), strict=True)
            )
        ]


@dataclass(frozen=True)
class _Line:
    text: bytes | None
    """Without a byte order mark; None if it is too long to be read."""
    length: int
    """In bytes, with its line end."""


def _lines(blocks: Iterable[bytes], *, at_top: bool) -> Iterator[_Line]:
    """The lines of a file; what follows the last line feed is a line too.

    Raises:
        InputError: the file cannot be rows; or from `blocks`.
    """
    pieces: list[bytes] = []
    length, first = 0, at_top
    for block in blocks:
        start = 0
        if first and not pieces and mark_of(block)[1] != "utf-8":
            raise InputError(f"it is {mark_of(block)[1].upper()}, and rows are read as UTF-8; save it as UTF-8")
        while (end := block.find(b"\n", start) + 1) > 0:
            pieces.append(block[start:end])
            yield _joined(pieces, length + end - start, first)
            pieces, length, first, start = [], 0, False, end
        length += len(block) - start
        pieces.append(block[start:])
        if length > LINE_BYTES:
            pieces = []
    if length:
        yield _joined(pieces, length, first)


def _joined(pieces: list[bytes], length: int, first: bool) -> _Line:
    if length > LINE_BYTES:
        return _Line(None, length)
    text = b"".join(pieces)
    return _Line(text.removeprefix(b"\xef\xbb\xbf") if first else text, length)


def _decoded(raw: bytes, older: FileEncoding) -> tuple[str, tuple[tuple[str, int], ...]]:
    """The line as text, and how it was decoded, for the counts.

    Raises:
        UnicodeDecodeError: it is neither UTF-8 nor wholly in the encoding of the file's other lines.
    """
    try:
        return raw.decode(), ()
    except UnicodeDecodeError:
        encoding = older.of(raw)
        text, invalid, converted = decode(raw, encoding)
        if invalid or not converted:
            raise
    return text, ((f"decoded_from_{encoding}", 1),)


def _stretched(row: list[Document | Rejected], end: int) -> list[Document | Rejected]:
    """The row, its last item reaching to `end`."""
    if not row:
        return row
    last = row[-1]
    stretched = replace(last, end=end) if isinstance(last, Document) else replace(last, bytes=end - last.start)
    return [*row[:-1], stretched]


def _dialog(messages: Any) -> list[tuple[str, str]] | str:
    """The messages of a dialog, or why they are none."""
    if not isinstance(messages, list) or not messages:
        return (
            f"'messages' is {_json_name(messages)}, not a list of messages" if messages != [] else "'messages' is empty"
        )
    pairs = []
    for number, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(role, str) or not isinstance(content, str):
            return f"message {number} lacks a 'role' or a 'content' that is a text"
        if role not in ROLES:
            return f"message {number} has the role {role[:40]!r}; roles are {', '.join(ROLES)}"
        pairs.append((role, _clean(content)))
    if not any(content.strip() for _, content in pairs):
        return "every message is empty"
    return pairs


def _clean(text: str) -> str:
    """Line ends as \\n; halves of surrogate pairs, which JSON can hold and UTF-8 cannot, as U+FFFD."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", text)


def _json_name(value: Any) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")
