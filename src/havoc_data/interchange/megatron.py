"""Megatron's indexed dataset: NAME.bin and NAME.idx.

    .bin    the tokens, without a header
    .idx    bytes  0..8   "MMIDIDX", 0, 0
            bytes  9..16  uint64: version, 1
            byte  17      uint8: code of the dtype of the tokens
            bytes 18..25  uint64: number of sequences
            bytes 26..33  uint64: number of document indices, one more than there are documents
            int32 [sequences]          tokens in each
            int64 [sequences]          byte of the .bin at which each begins
            int64 [documents + 1]      number of the first sequence of each document, and the number of sequences

All little-endian. A document may be several sequences, such as its sentences; they are read as one document, and one
sequence is written for each. A dataset of images and text has a byte for every sequence after that; it is not read.
A document ends in the end-of-document token and begins with no token of its own.

Source: megatron/core/datasets/indexed_dataset.py of NVIDIA/Megatron-LM, the layout only.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from havoc_core.config import Section
from havoc_core.errors import DataError
from havoc_data.interchange._files import (
    CHUNK,
    FETCH_AGAIN,
    check_written,
    companion,
    map_tokens,
    width_for,
    write_tokens,
)
from havoc_data.token_format import FoundDocument, Interchange, Vocabulary, WrittenDocument

_MAGIC = b"MMIDIDX\x00\x00"
_VERSION = 1
_HEADER = struct.Struct("<9sQBQQ")
_CODES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
"""6 and 7 are floating point, which no token is."""
_UINT16_BELOW = 65_500
"""Megatron itself writes int32 from this size of vocabulary on; it reads any dtype that has a code."""
_LONGEST = 2**31 - 1


class Options(Section):
    """Settings of this format."""

    dtype: Literal["auto", "uint16", "int32", "int64"] = "auto"
    """Of the tokens that are written. auto: what Megatron would write, uint16 for vocabularies below 65,500 ids and
    int32 from there on. What is read says itself what it is."""


def build(options: Options) -> Interchange:
    """Megatron's .bin and .idx."""
    return _Megatron(options.dtype)


@dataclass(frozen=True)
class _Megatron:
    dtype: str
    suffix: str = ".bin"

    def write(self, documents: Iterable[WrittenDocument], path: Path, vocabulary: Vocabulary) -> None:
        """As in Interchange; memory grows by four bytes a document."""
        auto = "uint16" if vocabulary.size < _UINT16_BELOW else "int32"
        dtype = width_for(vocabulary, auto if self.dtype == "auto" else self.dtype, "format_options.dtype")
        lengths = array("i")
        for document in write_tokens(_not_too_long(documents, path), path, dtype):
            lengths.append(len(document.ids))
        _write_index(path.with_suffix(".idx"), np.array(lengths, dtype=np.int32), dtype)

    def read(self, path: Path, vocabulary: Vocabulary) -> Iterator[FoundDocument]:
        """As in Interchange."""
        index = _Index.open(companion(path.with_suffix(".idx"), of=path))
        index.check(path)
        tokens = map_tokens(path, index.dtype)
        width = index.dtype.itemsize
        for start, end in index.documents():
            yield FoundDocument(tokens[start // width : end // width], start, end)


def _not_too_long(documents: Iterable[WrittenDocument], path: Path) -> Iterator[WrittenDocument]:
    for document in documents:
        if len(document.ids) > _LONGEST:
            raise DataError(
                str(path),
                f"a document of {len(document.ids):,} tokens is longer than the {_LONGEST:,} that Megatron can count.",
                "Cut it, or choose another format.",
            )
        yield document


def _write_index(path: Path, lengths: np.ndarray, dtype: np.dtype[Any]) -> None:
    code = next(code for code, name in _CODES.items() if name == dtype.name)
    count = len(lengths)
    with path.open("wb") as file:
        file.write(_HEADER.pack(_MAGIC, _VERSION, code, count, count + 1))
        for start in range(0, count, CHUNK):
            file.write(lengths[start : start + CHUNK].astype("<i4", copy=False).tobytes())
        begin = 0
        for start in range(0, count, CHUNK):
            ends = begin + np.cumsum(lengths[start : start + CHUNK], dtype=np.int64) * dtype.itemsize
            file.write(np.concatenate([[begin], ends[:-1]]).astype("<i8").tobytes())
            begin = int(ends[-1])
        for start in range(0, count + 1, CHUNK):
            file.write(np.arange(start, min(start + CHUNK, count + 1), dtype="<i8").tobytes())
    check_written(path, _HEADER.size + 12 * count + 8 * (count + 1))


@dataclass(frozen=True)
class _Index:
    """An .idx, memory-mapped."""

    path: Path
    dtype: np.dtype[Any]
    """Of the tokens."""
    lengths: np.ndarray
    """int32 [sequences]: tokens."""
    pointers: np.ndarray
    """int64 [sequences]: first byte."""
    firsts: np.ndarray
    """int64 [documents + 1]: first sequence of each document."""

    @classmethod
    def open(cls, path: Path) -> _Index:
        """The index, of which only the header and the size are checked."""
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        if not header.startswith(_MAGIC):
            raise DataError(
                str(path), f"is no index of Megatron: it begins with {header[:9]!r}.", "Name the .bin of another pair."
            )
        if len(header) < _HEADER.size:
            raise DataError(str(path), f"ends after {size:,} bytes, inside its header.", FETCH_AGAIN)
        _, version, code, sequences, documents = _HEADER.unpack(header)
        if version != _VERSION:
            raise DataError(
                str(path), f"is of version {version}; version {_VERSION} is known.", "Write it with a current Megatron."
            )
        if code not in _CODES:
            known = ", ".join(f"{number} {name}" for number, name in _CODES.items())
            raise DataError(
                str(path), f"names {code} as the dtype of its tokens, which is none of {known}.", FETCH_AGAIN
            )
        told = _HEADER.size + 12 * sequences + 8 * documents
        if size != told:
            more = " It may hold the modes of images and text, which are not read." if size == told + sequences else ""
            raise DataError(str(path), f"{size:,} bytes; its header counts entries for {told:,}.{more}", FETCH_AGAIN)

        def entries(dtype: str, offset: int, count: int) -> np.ndarray:
            return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))

        at = _HEADER.size
        return cls(
            path,
            np.dtype(_CODES[code]).newbyteorder("<"),
            entries("<i4", at, sequences),
            entries("<i8", at + 4 * sequences, sequences),
            entries("<i8", at + 12 * sequences, documents),
        )

    def check(self, tokens: Path) -> None:
        """Whether documents and sequences lie side by side and cover the tokens.

        Raises:
            DataError: they do not.
        """
        self._check_documents()
        end = 0
        for start in range(0, len(self.lengths), CHUNK):
            lengths = self.lengths[start : start + CHUNK].astype(np.int64)
            if int(lengths.min()) < 0:
                number = start + int(np.argmax(lengths < 0))
                raise DataError(
                    str(self.path), f"sequence {number:,} is {self.lengths[number]:,} tokens long.", FETCH_AGAIN
                )
            ends = end + np.cumsum(lengths) * self.dtype.itemsize
            told = np.concatenate([[end], ends[:-1]])
            wrong = self.pointers[start : start + CHUNK] != told
            if wrong.any():
                at = int(np.argmax(wrong))
                raise DataError(
                    str(self.path),
                    f"sequence {start + at:,} begins at byte {self.pointers[start + at]:,}, "
                    f"and the one before it ends at {told[at]:,}.",
                    FETCH_AGAIN,
                )
            end = int(ends[-1])
        size = tokens.stat().st_size
        if size != end:
            raise DataError(str(tokens), f"{size:,} bytes, its index says {end:,}.", FETCH_AGAIN)

    def _check_documents(self) -> None:
        firsts, count = self.firsts, len(self.lengths)
        whole = len(firsts) >= 1 and int(firsts[0]) == 0 and int(firsts[-1]) == count
        for start in range(0, len(firsts), CHUNK):
            part = firsts[start : start + CHUNK + 1]
            whole = whole and bool((part[1:] >= part[:-1]).all())
        if not whole:
            raise DataError(
                str(self.path), f"its documents do not ascend from sequence 0 to {count:,}, the last one.", FETCH_AGAIN
            )

    def documents(self) -> Iterator[tuple[int, int]]:
        """(first byte, one past the last) of each document."""
        count = len(self.lengths)
        total = int(self.pointers[-1]) + int(self.lengths[-1]) * self.dtype.itemsize
        for start in range(0, len(self.firsts) - 1, CHUNK):
            firsts = self.firsts[start : start + CHUNK + 1]
            begins = np.where(firsts < count, self.pointers[np.minimum(firsts, count - 1)], total)
            yield from pairwise(begins.tolist())
