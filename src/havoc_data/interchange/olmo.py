"""OLMo's token arrays, as the Dolma toolkit writes them: NAME.npy and NAME.csv.gz.

    .npy      the tokens, uint16 or uint32, little-endian, without a header: no array of numpy's own .npy format
    .csv.gz   a line for each document: first token, one past the last, id, source, place in the source

Without .csv.gz, documents end at the end-of-text token, which is how OLMo itself finds them in a file on its disk; that
token must therefore stand at the end of a document and nowhere else in it.

Source: src/olmo_core/data/utils.py of allenai/OLMo-core and python/dolma/tokenizer/memmap_writer.py of allenai/dolma, the
layout only.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from havoc_core.config import Section
from havoc_core.errors import DataError
from havoc_data.interchange._files import (
    CHUNK,
    FETCH_AGAIN,
    documents_between,
    map_tokens,
    width_for,
    write_tokens,
)
from havoc_data.token_format import FoundDocument, Interchange, Vocabulary, WrittenDocument

_NUMPY_MAGIC = b"\x93NUMPY"


class Options(Section):
    """Settings of this format."""

    dtype: Literal["auto", "uint8", "uint16", "uint32", "uint64"] = "auto"
    """Of the tokens; the files do not say it. auto: uint16 for vocabularies up to 65,536 ids, uint32 above."""


def build(options: Options) -> Interchange:
    """OLMo's .npy."""
    return _Olmo(options.dtype)


@dataclass(frozen=True)
class _Olmo:
    dtype: str
    suffix: str = ".npy"

    def write(self, documents: Iterable[WrittenDocument], path: Path, vocabulary: Vocabulary) -> None:
        """As in Interchange."""
        dtype = width_for(vocabulary, self.dtype, "format_options.dtype")
        end = 0
        # No name and no time in the header of gzip: equal documents make equal files.
        with (
            _boundaries_path(path).open("wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="") as text,
        ):
            rows = csv.writer(text, lineterminator="\n")
            for document in write_tokens(_with_one_end(documents, path, vocabulary), path, dtype):
                start, end = end, end + len(document.ids)
                line = document.provenance
                # OLMo reads line by line: a line end in a file's name would make two documents of one.
                source = " ".join(str(line.get("origin", "")).splitlines())
                rows.writerow([start, end, line.get("id", ""), source, line.get("ordinal", 0)])

    def read(self, path: Path, vocabulary: Vocabulary) -> Iterator[FoundDocument]:
        """As in Interchange."""
        with path.open("rb") as file:
            if file.read(len(_NUMPY_MAGIC)) == _NUMPY_MAGIC:
                raise DataError(
                    str(path),
                    "has the header of numpy's own .npy format, which OLMo would read as tokens.",
                    "Write its numbers without one: numpy.load(...).tofile(...).",
                )
        tokens = map_tokens(path, width_for(vocabulary, self.dtype, "format_options.dtype"))
        boundaries = _boundaries_path(path)
        if boundaries.is_file():
            yield from documents_between(tokens, _listed_ends(boundaries, len(tokens)))
        else:
            yield from documents_between(tokens, _ends_at(vocabulary.eos_id, tokens, path))


def _boundaries_path(path: Path) -> Path:
    return path.with_suffix(".csv.gz")


def _with_one_end(
    documents: Iterable[WrittenDocument], path: Path, vocabulary: Vocabulary
) -> Iterator[WrittenDocument]:
    """The documents, if OLMo would find them again without .csv.gz."""
    for document in documents:
        ends = np.flatnonzero(document.ids == vocabulary.eos_id)
        if ends.tolist() != [len(document.ids) - 1]:
            raise DataError(
                str(path),
                f"a document of {document.provenance.get('origin', 'the store')} has the end-of-text token at "
                f"{len(ends):,} places or not at its end, and OLMo cuts where that token stands.",
                "Choose another format; where one token is beginning and end of a text, leave --bos out.",
            )
        yield document


def _ends_at(eos_id: int, tokens: np.ndarray, path: Path) -> Iterator[int]:
    last = 0
    for start in range(0, len(tokens), CHUNK):
        for end in (np.flatnonzero(tokens[start : start + CHUNK] == eos_id) + start + 1).tolist():
            yield end
            last = end
    if last != len(tokens):
        raise DataError(
            str(path),
            f"{len(tokens) - last:,} tokens stand after the last end-of-text token (id {eos_id}).",
            "It broke off, dtype is another, or the tokenizer is not the one that wrote it; "
            "where documents end otherwise, a .csv.gz beside it must say so.",
        )


def _listed_ends(path: Path, num_tokens: int) -> Iterator[int]:
    """One past the last token of each document."""
    last = number = 0
    try:
        with gzip.open(path, mode="rt", encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file), start=1):
                start, end = int(row[0]), int(row[1])
                if start != last or not start <= end <= num_tokens:
                    raise DataError(
                        f"{path}:{number}",
                        f"a document from token {start:,} to {end:,}; the one before it ends at {last:,}, "
                        f"the file at {num_tokens:,}.",
                        FETCH_AGAIN,
                    )
                yield end
                last = end
    except (EOFError, OSError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise DataError(str(path), f"cannot be read after line {number:,} ({error}).", FETCH_AGAIN) from None
    except (ValueError, IndexError) as error:
        raise DataError(
            f"{path}:{number}", f"is no line of first token, last token, id, source, place ({error}).", FETCH_AGAIN
        ) from None
    if last != num_tokens:
        raise DataError(str(path), f"its documents end at token {last:,}, the file at {num_tokens:,}.", FETCH_AGAIN)
