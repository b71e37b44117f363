"""datatrove's tokenized files: NAME.ds, NAME.ds.index and NAME.ds.metadata.

    .ds           the tokens, uint16 or uint32, without a header
    .ds.index     uint64: one past the last token of each document
    .ds.metadata  text of three lines: name of the tokenizer|bytes of a token, number of tokens, that number for people

All little-endian. Files without .metadata are read too; so are those of older versions, which leave out |bytes of a
token where it is 2. A document ends in the end-of-text token and begins with no token of its own.

Source: src/datatrove/pipeline/tokens/tokenizer.py and utils/dataset.py of huggingface/datatrove, the layout only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    documents_between,
    map_tokens,
    width_for,
    write_tokens,
)
from havoc_data.token_format import FoundDocument, Interchange, Vocabulary, WrittenDocument

_DTYPES = {2: "uint16", 4: "uint32"}
_PREFIXES = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k"))
_METADATA_BYTES = 2**16


class Options(Section):
    """Settings of this format."""

    token_size: Literal["auto", 2, 4] = "auto"
    """Bytes of a token. auto: written, 2 for vocabularies up to 65,536 ids and 4 above; read, what .metadata says, or as
    if written where there is none."""


def build(options: Options) -> Interchange:
    """datatrove's .ds."""
    return _Datatrove("auto" if options.token_size == "auto" else _DTYPES[options.token_size])


@dataclass(frozen=True)
class _Datatrove:
    dtype: str
    """ "auto", "uint16" or "uint32"."""
    suffix: str = ".ds"

    def write(self, documents: Iterable[WrittenDocument], path: Path, vocabulary: Vocabulary) -> None:
        """As in Interchange."""
        dtype = width_for(vocabulary, self.dtype, "format_options.token_size")
        index = _beside(path, ".index")
        count = end = 0
        with index.open("wb") as file:
            for document in write_tokens(documents, path, dtype):
                end += len(document.ids)
                count += 1
                file.write(end.to_bytes(8, "little"))
        check_written(index, 8 * count)
        text = f"{vocabulary.name}|{dtype.itemsize}\n{end}\n{_for_people(end)}"
        _beside(path, ".metadata").write_text(text, encoding="utf-8")

    def read(self, path: Path, vocabulary: Vocabulary) -> Iterator[FoundDocument]:
        """As in Interchange."""
        if _beside(path, ".loss").exists():
            raise DataError(
                str(_beside(path, ".loss")),
                "says which tokens are not learnt, and a token store cannot hold that.",
                "Move it elsewhere to learn all of them.",
            )
        index = companion(_beside(path, ".index"), of=path)
        size, count = _metadata(_beside(path, ".metadata"))
        told = _DTYPES[size] if size else vocabulary.dtype.name
        dtype = np.dtype(told if self.dtype == "auto" else self.dtype).newbyteorder("<")
        tokens = map_tokens(path, dtype)
        if count is not None and count != len(tokens):
            raise DataError(
                str(path), f"{len(tokens):,} tokens of {dtype.itemsize} bytes, .metadata says {count:,}.", FETCH_AGAIN
            )
        yield from documents_between(tokens, _ends(index, len(tokens), dtype))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _for_people(count: int) -> str:
    for size, prefix in _PREFIXES:
        if count >= size:
            return f"{count / size:.2f} {prefix}T"
    return f"{count} T"


def _metadata(path: Path) -> tuple[int | None, int | None]:
    """(bytes of a token, number of tokens); None where there is no such file."""
    if not path.is_file():
        return None, None
    with path.open("rb") as file:
        lines = file.read(_METADATA_BYTES).decode("utf-8", errors="replace").split("\n")
    # Of an unknown tokenizer datatrove writes the size twice: the last one counts.
    size = lines[0].rpartition("|")[2] if "|" in lines[0] else "2"
    if len(lines) < 2 or size not in {"2", "4"} or not (lines[1].isascii() and lines[1].isdigit()):
        raise DataError(
            str(path),
            f"names no size of a token and no number of tokens: {' / '.join(lines[:2])!r}.",
            "Delete it if the tokens are right; the size then follows from the vocabulary, or from token_size.",
        )
    return int(size), int(lines[1])


def _ends(path: Path, num_tokens: int, dtype: np.dtype[Any]) -> Iterator[int]:
    """One past the last token of each document. All are checked before the first is given."""
    size = path.stat().st_size
    if size == 0 or size % 8:
        raise DataError(str(path), f"{size:,} bytes are no list of numbers of 8 bytes.", FETCH_AGAIN)
    ends = np.memmap(path, dtype="<u8", mode="r")
    last = 0
    for start in range(0, len(ends), CHUNK):
        part = ends[start : start + CHUNK]
        falls = np.concatenate([[int(part[0]) < last], part[1:] < part[:-1]])
        if falls.any():
            at = start + int(np.argmax(falls))
            raise DataError(
                str(path), f"document {at:,} ends at token {ends[at]:,}, before the one in front of it.", FETCH_AGAIN
            )
        last = int(part[-1])
    if last != num_tokens:
        raise DataError(
            str(path),
            f"its last document ends at token {last:,}, and the file has {num_tokens:,} of {dtype.itemsize} bytes.",
            "One of the two broke off, or token_size is another: copy both again, or set format_options.token_size.",
        )
    for start in range(0, len(ends), CHUNK):
        yield from ends[start : start + CHUNK].tolist()
