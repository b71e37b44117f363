"""What a token format of another stack is.

A file on the shelf `interchange/` has `Options` and `build(options) -> Interchange`. In such a format a set of files
holds the documents of one source: one file holds the tokens and gives the set its path, the others lie beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from havoc_core.registry import Shelf

TOKEN_FORMATS = Shelf("havoc_data.interchange", "format", "a token format")


@dataclass(frozen=True)
class Vocabulary:
    """What a format needs to know of the ids."""

    size: int
    """Ids are below it."""
    bos_id: int
    """Beginning of a text."""
    eos_id: int
    """End of a text."""
    name: str
    """What the tokenizer is called, for formats that write it down; one line."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smaller of uint16 and uint32 that holds every id, little-endian."""
        return np.dtype("<u2" if self.size <= 65_536 else "<u4")


@dataclass(frozen=True)
class WrittenDocument:
    """A document on its way out of a store."""

    ids: np.ndarray
    """[tokens], unsigned integers."""
    provenance: Mapping[str, Any]
    """Its line in the store: `id`, `source`, `origin`, `ordinal` and more."""


@dataclass(frozen=True)
class FoundDocument:
    """A document as it lies in the files of another stack."""

    ids: np.ndarray
    """[tokens], of whatever integers the file holds; not checked against any vocabulary. May be empty."""
    start: int
    """Its first byte in the file that holds the tokens."""
    end: int
    """One past its last byte."""


class Interchange(Protocol):
    """Reads and writes sets of files of one format."""

    @property
    def suffix(self) -> str:
        """End of the name of the file that holds the tokens, such as ".bin"."""
        ...

    def write(self, documents: Iterable[WrittenDocument], path: Path, vocabulary: Vocabulary) -> None:
        """Write one set of files, in memory that does not grow with the tokens.

        Args:
            documents: in order, none of them empty, every id inside the vocabulary.
            path: of the file that holds the tokens; its folder exists and holds nothing else of that name.
            vocabulary: of the ids.

        Raises:
            DataError: the format cannot hold the documents, or what lies on the disk has not the size it should have.
        """
        ...

    def read(self, path: Path, vocabulary: Vocabulary) -> Iterator[FoundDocument]:
        """Every document of one set, in order: its bytes lie side by side and cover the file that holds the tokens.

        The set is good if the last document was given: until then a fault may still be found. Memory does not grow with
        the tokens.

        Raises:
            DataError: a file of the set is missing, damaged, or of another format.
            OSError: a file cannot be read.
        """
        ...
