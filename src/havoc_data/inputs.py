"""Files as the readers meet them: on disk, compressed, or inside an archive, always as a stream of plain bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

WHOLE_FILE_BYTES = 256 * 2**20
"""Largest file of a format that can only be read as a whole."""


class InputError(Exception):
    """A file cannot be read, or not further. Never reaches the user: it becomes a line of the ledger.

    Args:
        reason: why, in words for the user.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Input:
    """One file to read, or a range of its bytes. Can be sent to another process."""

    origin: str
    """Path relative to the source's folder with forward slashes; inside an archive "archive.zip!/inner/path"."""
    path: Path
    """The file on disk: the file itself, or the archive it lies in."""
    packing: tuple[str, ...] = ()
    """What is to be undone to get from the file on disk to its bytes, such as ("gz",) or ("zip:inner/path", "zst")."""
    start: int = 0
    """First byte to read. Not 0 only where a large file on disk is read in several ranges."""
    end: int | None = None
    """One past the last byte to read; None: to the end."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked bytes from `start` to `end`, to be read in order.

        Raises:
            InputError: it cannot be opened; also from `read` of what is given, where the data break off.
        """
        raise NotImplementedError
        yield

    @contextmanager
    def open_seekable(self) -> Iterator[BinaryIO]:
        """The whole unpacked file, to be read in any order; a packed one is spooled to a temporary file first."""
        raise NotImplementedError
        yield

    def read_all(self, limit: int = WHOLE_FILE_BYTES) -> bytes:
        """All unpacked bytes.

        Raises:
            InputError: there are more than `limit`, or as for `open`.
        """
        raise NotImplementedError
