"""Held-out documents on disk: `store/validation/<group>.jsonl.zst`, one JSON object a line.

{"id": "...", "source": "...", "text": "..."}
{"id": "...", "source": "...", "messages": [["user", "..."], ["assistant", "..."]]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from havoc_core.errors import DataError

_READ_BYTES = 64 * 1024
_REMEDY = "Build it again: havoc data build."


@dataclass(frozen=True)
class HeldOutDocument:
    """A text, or the messages of a dialog, that the model has not seen."""

    id: str
    source: str
    text: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    """(role, content) pairs; a document has these or a text."""

    @property
    def contents(self) -> tuple[str, ...]:
        """The texts in it: what is predicted and whose bytes are counted."""
        return tuple(content for _, content in self.messages) or (self.text,)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the contents."""
        return sum(len(content.encode()) for content in self.contents)


def read_held_out(path: Path) -> Iterator[HeldOutDocument]:
    """The documents of a file, one after another; those without any text are left out.

    Raises:
        DataError: the file is missing or damaged, or a line is no document; names the line.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(_lines(file), start=1):
                document = _document(line, where=f"{path}:{number}")
                if document.num_bytes:
                    yield document
    except OSError as error:
        raise DataError(str(path), f"cannot be read ({error.strerror or error}).", _REMEDY) from None
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise DataError(str(path), f"is damaged ({error}).", _REMEDY) from None


def _lines(file: BinaryIO) -> Iterator[str]:
    rest = b""
    for block in _unpacked(file):
        *lines, rest = (rest + block).split(b"\n")
        yield from (line.decode() for line in lines)
    if rest:
        yield rest.decode()


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """All frames of a file; zstandard's own stream reader takes one that breaks off for one that ends."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    inside = False
    while block := file.read(_READ_BYTES):
        while block:
            yield frame.decompress(block)
            block, inside = frame.unused_data, not frame.eof
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
    if inside:
        raise zstandard.ZstdError("it breaks off")


def _document(line: str, *, where: str) -> HeldOutDocument:
    try:
        values = json.loads(line)
        messages = tuple((_text(role), _text(content)) for role, content in values.get("messages", ()))
        document = HeldOutDocument(
            id=_text(values["id"]),
            source=_text(values["source"]),
            text="" if messages else _text(values["text"]),
            messages=messages,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(where, f"is no held-out document ({type(error).__name__}: {error}).", _REMEDY) from None
    return document


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {type(value).__name__}")
    value.encode()  # JSON can hold half a surrogate pair, which is no character
    return value
