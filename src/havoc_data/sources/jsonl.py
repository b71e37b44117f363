"""One JSON object a line: .jsonl, .jsonl.gz and .jsonl.zst files of a folder, or one file.

A row with `messages` (a list of {"role", "content"}) is a dialog; any other row is the text in its `text_field`.
Files are read line by line, so that memory does not grow with them. A row that cannot be used is named with
its line, and the rows around it are kept; so are the rows before the place where a compressed file breaks off.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from havoc_core.config import Section
from havoc_data.document import Document, Rejected
from havoc_data.sections import cut_into_sections
from havoc_data.sources._files import (
    JSONL_SUFFIXES,
    READ_BYTES,
    TEXT_SUFFIXES,
    Found,
    contents_digest,
    find_files,
    needed_path,
    nothing_came_out,
    nothing_to_read,
    unread,
)

ROLES = ("system", "user", "assistant")
"""Who can speak in a dialog."""
LINE_BYTES = 128 * 1024 * 1024
"""Longest line that is read; a longer one is passed over, and said so."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_ZSTD_BYTES = 4096
"""Compressed bytes fed at a time: a hostile file grows them 32,000-fold, to 128 MiB, and no further."""


class Options(Section):
    """Settings of this kind of source."""

    text_field: str = "text"
    """Key of the text in a row."""
    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out, relative to the folder, such as "**/draft_*"."""


def build(path: str | None, options: Options) -> Jsonl:
    """The JSON-lines files at or below `path`.

    Raises:
        ConfigError: there is no path.
        DataError: nothing is there, or no file that is there ends in .jsonl, .jsonl.gz or .jsonl.zst.
    """
    folder = needed_path("jsonl", path)
    found = find_files(folder, suffixes=JSONL_SUFFIXES, exclude=options.exclude)
    if not found.files:
        raise nothing_to_read(folder, found, JSONL_SUFFIXES)
    return Jsonl(folder, options.text_field, found)


@dataclass(frozen=True)
class Jsonl:
    """JSON-lines files in the order of their paths. A `Source`."""

    path: Path
    """As given."""
    text_field: str
    """Key of the text in a row."""
    found: Found
    """What was there when the source was built."""

    def documents(self) -> Iterator[Document | Rejected]:
        """Every row as one document, or as several if its text is long; ordinals count the documents of a file.

        start and end are the bytes of the row's line in the file, before JSON is undone; 0 in a compressed file.

        Raises:
            DataError: at the end, if there was not one document.
        """
        yield from self.found.rejected
        if not any(origin.lower().endswith(TEXT_SUFFIXES) for origin, _ in self.found.others):
            yield from unread(self.found, "jsonl")  # else the text_files source of the same folder names them
        given, rejected, first = 0, 0, None
        for origin, path in self.found.files:
            for item in self._documents_of(origin, path):
                if isinstance(item, Document):
                    given += 1
                else:
                    rejected, first = rejected + 1, first or item
                yield item
        if not given:
            raise nothing_came_out(self.path, rejected, first)

    def fingerprint(self) -> str:
        """Hex digest of names, contents and text_field."""
        return contents_digest(self.found, "jsonl 1", self.text_field)

    def _documents_of(self, origin: str, path: Path) -> Iterator[Document | Rejected]:
        ordinal = number = position = 0
        packed = origin.lower().endswith((".gz", ".zst"))
        try:
            with path.open("rb") as file:
                for line in _lines(_unpacked(file, origin.lower())):
                    number, start, position = number + 1, position, position + line.length
                    where = (0, 0) if packed else (start, position)
                    for item in self._row(f"{origin}:{number}", line):
                        if isinstance(item, Document):
                            item = Document(origin, item.text, item.messages, ordinal, *where)
                            ordinal += 1
                        yield item
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            what = f"its compressed data break off or are damaged after line {number} ({error})"
            yield Rejected(origin, f"{what}; the rows before that are kept")
        except OSError as error:
            yield Rejected(origin, f"it cannot be read after line {number} ({error.strerror or error})")
        if not position:
            yield Rejected(origin, "it is empty")

    def _row(self, where: str, line: _Line) -> Iterator[Document | Rejected]:
        """The documents of one row; a blank line is none."""
        if line.text is None:
            yield Rejected(where, f"a line of more than {LINE_BYTES // 2**20} MiB", line.length)
            return
        if not line.text.strip():
            return
        try:
            row = json.loads(line.text.decode())
        except UnicodeDecodeError as error:
            yield Rejected(where, f"byte {error.start + 1} of the line is not UTF-8", line.length)
            return
        except json.JSONDecodeError as error:
            yield Rejected(
                where, f"no valid JSON ({error.msg.removesuffix(' at')} at character {error.colno})", line.length
            )
            return
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits; a list 1,000 deep
            yield Rejected(where, f"JSON that cannot be read ({error})", line.length)
            return
        made = self._content(row)
        if isinstance(made, str):
            yield Rejected(where, made, line.length)
            return
        if made.messages:
            yield made
            return
        for start, end in cut_into_sections(made.text):
            yield Document(where, made.text[start:end])

    def _content(self, row: Any) -> Document | str:
        """The row as a document, or why it is none."""
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
        return Document("", _clean(text)) if text.strip() else f"'{self.text_field}' is empty"


@dataclass(frozen=True)
class _Line:
    text: bytes | None
    """Without its line end; None if it is too long to be read."""
    length: int
    """In bytes, with its line end."""


def _lines(blocks: Iterator[bytes]) -> Iterator[_Line]:
    """The lines of a file; the first loses a byte order mark. What follows the last line feed is a line too."""
    pieces: list[bytes] = []
    length, first = 0, True
    for block in blocks:
        start = 0
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


def _unpacked(file: BinaryIO, name: str) -> Iterator[bytes]:
    if name.endswith(".gz"):
        with gzip.GzipFile(fileobj=file) as unzipped:
            # read1, since read would lose what it has got so far where the file breaks off.
            yield from iter(lambda: unzipped.read1(READ_BYTES), b"")
    elif name.endswith(".zst"):
        yield from _unpacked_zstd(file)
    else:
        yield from iter(lambda: file.read(READ_BYTES), b"")


def _unpacked_zstd(file: BinaryIO) -> Iterator[bytes]:
    """Frame after frame. By hand, since the package's own reader takes a broken-off frame for the end of the file."""
    frame = None
    while block := file.read(_ZSTD_BYTES):
        while block:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            if text := frame.decompress(block):
                yield text
            block = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError("the last frame has no end")


def _dialog(messages: Any) -> Document | str:
    """The messages as a document, or why they are none."""
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
    return Document("", messages=tuple(pairs))


def _clean(text: str) -> str:
    """Line ends as \\n; halves of surrogate pairs, which JSON can hold and UTF-8 cannot, as U+FFFD."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _SURROGATE.sub("\ufffd", text)


def _json_name(value: Any) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    return {dict: "an object", list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")
