"""Plain text: .txt, .md, .rst and .text files of a folder, or one file.

UTF-8, or UTF-16 and UTF-32 with a byte order mark. Line ends become \\n. Bytes that are not UTF-8 become U+FFFD and
are counted. A file over 256 KiB becomes several documents (see `havoc_data.sections`); each knows its bytes in
the file, so that the bytes of a UTF-8 file, decoded, are the document except for line ends.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from havoc_core.config import Section
from havoc_data.document import Document, Rejected
from havoc_data.sections import sections_of
from havoc_data.sources._files import (
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

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is how this one begins
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a ZIP archive (a .docx, say)"),
    (b"\xd0\xcf\x11\xe0", "an old Office file"),
    (b"\x1f\x8b\x08", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\x7fELF", "a program"),
)
_CONTROLS = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r\v\f\b\x1b")
_WORST_CONTROLS = 0.1
"""Share of control bytes above which a file is no text."""
_WORST_INVALID = 0.25
"""Share of bytes that are no UTF-8 above which a file is not read. German, French or Polish in a one-byte encoding
have 0.1 at most and can be read with gaps; random bytes have 0.4, Russian or Greek in one byte 0.8."""


class Options(Section):
    """Settings of this kind of source."""

    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out, relative to the folder, such as "**/draft_*"."""


def build(path: str | None, options: Options) -> TextFiles:
    """The text files at or below `path`.

    Raises:
        ConfigError: there is no path.
        DataError: nothing is there, or nothing that is there is text.
    """
    folder = needed_path("text_files", path)
    found = find_files(folder, suffixes=TEXT_SUFFIXES, exclude=options.exclude)
    if not found.files:
        raise nothing_to_read(folder, found, TEXT_SUFFIXES)
    return TextFiles(folder, found)


@dataclass(frozen=True)
class TextFiles:
    """Text files in the order of their paths. A `Source`."""

    path: Path
    """As given."""
    found: Found
    """What was there when the source was built."""

    def documents(self) -> Iterator[Document | Rejected]:
        """Every file as one document, or as several if it is long; files that are not read come first.

        Raises:
            DataError: at the end, if there was not one document.
        """
        yield from self.found.rejected
        yield from unread(self.found, "text_files")
        given, refused = 0, []
        for origin, path in self.found.files:
            for item in _documents_of(origin, path):
                given += isinstance(item, Document)
                if isinstance(item, Rejected) and not given:
                    refused.append(item)
                yield item
        if not given:
            raise nothing_came_out(self.path, len(refused), refused[0] if refused else None)

    def fingerprint(self) -> str:
        """Hex digest of names and contents."""
        return contents_digest(self.found, "text_files 1")


def _documents_of(origin: str, path: Path) -> Iterator[Document | Rejected]:
    try:
        with path.open("rb") as file:
            yield from _documents_in(origin, file, path.stat().st_size)
    except OSError as error:
        yield Rejected(origin, f"it cannot be read ({error.strerror or error})")


def _documents_in(origin: str, file: BinaryIO, size: int) -> Iterator[Document | Rejected]:
    head = file.read(READ_BYTES)
    if not head:
        yield Rejected(origin, "it is empty")
        return
    mark, encoding = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "utf-8"))
    magic = next((what for start, what in _MAGIC if head.startswith(start)), None)
    if magic:
        yield Rejected(origin, f"it is {magic}, whatever its name says; convert it to text", size)
        return
    ordinal = invalid = 0
    end = len(mark)
    for raw in sections_of(_utf8_blocks(head[len(mark) :], file, encoding)):
        text = raw.decode("utf-8", "replace")
        start, end = end, end + (len(raw) if encoding == "utf-8" else len(text.encode(encoding)))
        wrong = _invalid_bytes(raw, text)
        reason = _why_no_text(raw, wrong)
        if reason and start == len(mark):
            yield Rejected(origin, reason, size)  # what begins like this is not read to its end
            return
        if reason or not text.strip():
            yield Rejected(origin, f"bytes {start} to {end}: {reason or 'white space only'}", end - start)
            continue
        invalid += wrong
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        yield Document(origin, text, ordinal=ordinal, start=start, end=min(end, size))
        ordinal += 1
    if end == len(mark):
        yield Rejected(origin, "it is empty", size)
    if invalid:
        yield Rejected(origin, f"{invalid} bytes are not UTF-8 and became U+FFFD; save the file as UTF-8", invalid)


def _utf8_blocks(head: bytes, file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """`head` and the rest of the file, as UTF-8. What is said to be UTF-8 is passed on as it is, valid or not."""
    if encoding == "utf-8":
        yield head
        yield from iter(lambda: file.read(READ_BYTES), b"")
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    block = head
    while block:
        yield decoder.decode(block).encode()
        block = file.read(READ_BYTES)
    yield decoder.decode(b"", final=True).encode()


def _invalid_bytes(raw: bytes, text: str) -> int:
    if "\ufffd" not in text:
        return 0
    return len(raw) - len(raw.decode("utf-8", "ignore").encode())


def _why_no_text(raw: bytes, invalid: int) -> str | None:
    """Why these bytes are no text, or None if they are."""
    zeros = raw.count(0)
    controls = len(raw) - len(raw.translate(None, _CONTROLS))
    if zeros > 0.3 * len(raw) and zeros == controls:
        return "every other byte is zero: UTF-16 without a byte order mark? Save it as UTF-8"
    if controls > _WORST_CONTROLS * len(raw):
        return f"{controls / len(raw):.0%} of its bytes are control characters: it is no text"
    if invalid > _WORST_INVALID * len(raw):
        return f"{invalid / len(raw):.0%} of its bytes are not UTF-8: no text, or another encoding; save it as UTF-8"
    return None
