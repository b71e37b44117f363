"""What the formats share: tokens without a header, the places where documents end, and sizes that must be right."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from havoc_core.errors import DataError
from havoc_data.token_format import FoundDocument, Vocabulary, WrittenDocument

CHUNK = 2**16
"""Entries of an index, or tokens, that are looked at at once."""
FETCH_AGAIN = "It broke off or was changed: copy or write it again."


def write_tokens(documents: Iterable[WrittenDocument], path: Path, dtype: np.dtype[Any]) -> Iterator[WrittenDocument]:
    """Write the ids of each document and give it back; after the last one, the size of the file is compared."""
    count = 0
    with path.open("wb") as file:
        for document in documents:
            file.write(document.ids.astype(dtype, copy=False).tobytes())
            count += len(document.ids)
            yield document
    check_written(path, count * dtype.itemsize)


def check_written(path: Path, num_bytes: int) -> None:
    """Compare the size of a file that was just closed.

    Raises:
        DataError: it is another.
    """
    found = path.stat().st_size
    if found != num_bytes:
        raise DataError(
            str(path),
            f"{found:,} bytes lie on the disk, {num_bytes:,} were written.",
            "The disk may be full or failing: export to another.",
        )


def width_for(vocabulary: Vocabulary, chosen: str, where: str) -> np.dtype[Any]:
    """The dtype to write: the chosen one, or for "auto" the smaller of uint16 and uint32 that holds every id.

    Raises:
        DataError: the chosen one does not hold every id.
    """
    if chosen == "auto":
        return vocabulary.dtype
    dtype = np.dtype(chosen).newbyteorder("<")
    most = int(np.iinfo(dtype).max)
    if vocabulary.size > most + 1:
        raise DataError(
            where,
            f"{dtype.name} holds ids up to {most:,}, and the vocabulary has {vocabulary.size:,}.",
            "Leave it at auto, or choose a wider one.",
        )
    return dtype


def companion(path: Path, *, of: Path) -> Path:
    """A file that must lie beside the tokens.

    Raises:
        DataError: it does not.
    """
    if not path.is_file():
        raise DataError(str(path), f"is missing; {of.name} means nothing without it.", "Copy both into one folder.")
    return path


def map_tokens(path: Path, dtype: np.dtype[Any]) -> np.ndarray:
    """[tokens], memory-mapped.

    Raises:
        DataError: the file is empty, or its size is that of no whole number of tokens.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(str(path), "holds no tokens.", FETCH_AGAIN)
    if size % dtype.itemsize:
        raise DataError(
            str(path), f"{size:,} bytes are no whole number of tokens of {dtype.itemsize} bytes.", FETCH_AGAIN
        )
    return np.memmap(path, dtype=dtype, mode="r")


def documents_between(tokens: np.ndarray, ends: Iterable[int]) -> Iterator[FoundDocument]:
    """The documents of a file in which each begins where the one before ends."""
    width = tokens.dtype.itemsize
    start = 0
    for end in ends:
        yield FoundDocument(tokens[start:end], start * width, end * width)
        start = end
