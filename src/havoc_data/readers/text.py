"""Plain text, Markdown and reStructuredText as they stand.

UTF-8, or UTF-16 and UTF-32 with a byte order mark; lines in an encoding of older systems are found out. Line ends become
\\n. A file over 256 KiB becomes several documents (see `havoc_data.sections`); each knows its bytes in the file, so that
the bytes of a UTF-8 file, decoded, are the document except for line ends.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from havoc_core.config import Section
from havoc_data.archives import peeled
from havoc_data.document import Document, Rejected
from havoc_data.encoding import decode, is_utf8, magic_of, mark_of, mend, why_no_text
from havoc_data.inputs import Input, InputError
from havoc_data.readers._file_encoding import FileEncoding
from havoc_data.sections import sections_of
from havoc_data.unpacking import READ_BYTES

_MARKDOWN = (".md", ".markdown")
_FRONT_MATTER = re.compile(rb"---[ \t]*\r?\n(?=[A-Za-z_][\w -]*:)(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\r?\n|$)")
"""YAML between rules at the beginning of a page: what it is called, who wrote it."""
_FRONT_MATTER_BYTES = 64 * 1024
_SEARCHED_BYTES = 2**20
"""How far a blank line or a line end is looked for where a file is cut in two."""
_BLANK_LINE = re.compile(rb"\n[ \t]*\r?\n")


class Options(Section):
    """Settings of this reader."""

    mend_encoding: bool = True
    """Find encodings other than UTF-8, and mend text that was decoded wrongly."""


def build(options: Options) -> TextReader:
    """The reader."""
    return TextReader(options.mend_encoding)


@dataclass(frozen=True)
class TextReader:
    """Reads plain text. A `Reader`."""

    mend_encoding: bool
    """As in Options."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """Each file alone."""
        return [(item,) for item in items]

    def boundary(self, item: Input, near: int) -> int | None:
        """The end of the paragraph, else of the line, else of the character; None for UTF-16, UTF-32 and what is no text."""
        with item.open_seekable() as file:
            head = file.read(16)
            if mark_of(head)[1] != "utf-8" or magic_of(head):
                return None
            file.seek(near)
            window = file.read(_SEARCHED_BYTES)
        blank = _BLANK_LINE.search(window)
        if blank:
            return near + blank.end()
        line = window.find(b"\n")
        if line >= 0:
            return near + line + 1
        return near + next((place for place, byte in enumerate(window[:4]) if byte & 0xC0 != 0x80), 0)

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """The file as one document, or as several if it is long.

        Ordinals begin at `start`, so that those of one file never meet. Counts: invalid_bytes became U+FFFD;
        decoded_from_<encoding>; mended_characters; front_matter_bytes were left out.

        Raises:
            InputError: it is no text, or its data break off.
        """
        item = unit[0]
        with item.open() as file:
            yield from self._documents(item, file)

    def _documents(self, item: Input, file: BinaryIO) -> Iterator[Document | Rejected]:
        head = file.read(READ_BYTES)
        if not head:
            yield Rejected(item.origin, "it is empty", start=item.start, rule="empty")
            return
        at_top = item.start == 0
        mark, encoding = mark_of(head) if at_top else (b"", "utf-8")
        no_text = magic_of(head) if at_top else None
        if no_text:
            raise InputError(no_text)
        head = head[len(mark) :]
        front = _front_matter(item.origin, head) if at_top and encoding == "utf-8" else 0
        blocks = _Utf8Blocks(head[front:], file, encoding, item.start + len(mark) + front)
        older = FileEncoding(item, wanted=self.mend_encoding and encoding == "utf-8")
        counts = Counter({"front_matter_bytes": front})
        start, ordinal = item.start, item.start
        for raw, end in blocks.sections():
            made = self._section(raw, older, counts, is_damaged=encoding != "utf-8")
            if isinstance(made, Document):
                text_counts = tuple((name, count) for name, count in sorted(counts.items()) if count)
                yield Document(item.origin, made.text, ordinal=ordinal, start=start, end=end, counts=text_counts)
                ordinal += 1
            elif start == 0 and made.rule != "empty":
                raise InputError(made.reason)  # what begins like this is not read to its end
            else:
                yield Rejected(item.origin, made.reason, end - start, start, made.rule)
            start = end
            counts = Counter()
        if blocks.broken is not None:
            raise blocks.broken
        if start == item.start:
            what = "front matter and nothing else" if front else "it is empty"
            yield Rejected(item.origin, what, len(mark) + front, start, "empty")

    def _section(
        self, raw: bytes, older: FileEncoding, counts: Counter[str], *, is_damaged: bool
    ) -> Document | Rejected:
        """A section as text or why it is none, without its place; adds to `counts`."""
        valid = is_utf8(raw)
        encoding = None if valid else older.of(raw)
        text, invalid, converted = decode(raw, encoding)
        reason = why_no_text(raw, invalid)
        if reason:
            return Rejected("", reason + (older.hint if "not UTF-8" in reason else ""))
        if not text.strip():
            return Rejected("", "white space only", rule="empty")
        counts["invalid_bytes"] = text.count("\ufffd") if is_damaged else invalid
        if converted:
            counts[f"decoded_from_{encoding}"] = 1
        if self.mend_encoding:
            text, counts["mended_characters"] = mend(text)
        return Document("", text.replace("\r\n", "\n").replace("\r", "\n"))


class _Utf8Blocks:
    """The rest of a file as sections of UTF-8. What is said to be UTF-8 is passed on as it is, valid or not."""

    def __init__(self, head: bytes, file: BinaryIO, encoding: str, start: int) -> None:
        self._head = head
        self._file = file
        self._encoding = encoding
        self._read_to = start
        self._start = start
        self.broken: InputError | None = None
        """Why the file could not be read to its end; what came before is given all the same."""

    def sections(self) -> Iterator[tuple[bytes, int]]:
        """(section, its last byte in the file plus one): the last ends where the file does."""
        end = self._start
        waiting = None
        for raw in sections_of(self._blocks()):
            if waiting is not None:
                end = min(self._read_to, end + self._length(waiting))
                yield waiting, end
            waiting = raw
        if waiting is not None:
            yield waiting, self._read_to

    def _length(self, raw: bytes) -> int:
        return len(raw) if self._encoding == "utf-8" else len(raw.decode().encode(self._encoding))

    def _blocks(self) -> Iterator[bytes]:
        decoder = None if self._encoding == "utf-8" else codecs.getincrementaldecoder(self._encoding)("replace")
        block = self._head
        while block:
            self._read_to += len(block)
            yield block if decoder is None else decoder.decode(block).encode()
            try:
                block = self._file.read(READ_BYTES)
            except InputError as error:
                self.broken, block = error, b""
        if decoder is not None:
            yield decoder.decode(b"", final=True).encode()


def _front_matter(origin: str, head: bytes) -> int:
    """Bytes of front matter at the beginning of a Markdown file."""
    if not peeled(origin.lower())[1].endswith(_MARKDOWN):
        return 0
    found = _FRONT_MATTER.match(head, 0, _FRONT_MATTER_BYTES)
    return found.end() if found else 0
