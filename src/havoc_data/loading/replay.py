"""From a batch back to the files: which documents, and which bytes of them, a step learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from havoc_data.document import Span
from havoc_data.loading.loader import Loader, Row


@dataclass(frozen=True)
class Fragment:
    """A stretch of one document in one row."""

    document: str
    """Id of the document."""
    source: str
    """Name of the source."""
    origin: str
    """The file, relative to the source's folder, or what the document is called."""
    first_pair: int
    """Where it begins in the row."""
    num_pairs: int
    """(input, label) pairs."""
    tokens: tuple[int, int]
    """[first, one past the last) of its tokens in the document, BOS being token 0."""
    spans: tuple[Span, ...]
    """The bytes of the document; of the fragment alone where the text is the file's bytes as they stand."""
    exact: bool
    """Whether `spans` is the fragment and not the whole document."""
    licence: str | None
    """SPDX name, where known."""


@dataclass(frozen=True)
class ReplayedRow:
    """One row of a batch, and where it came from."""

    row: Row
    fragments: tuple[Fragment, ...]


def replay(loader: Loader, slots: range, *, token_lengths: np.ndarray) -> list[ReplayedRow]:
    """The rows of some slots, made again, each with the origin of its documents.

    Args:
        loader: of the run.
        slots: as `metrics.jsonl` gives them for a step.
        token_lengths: [V] bytes of each id; 0 for special tokens.
    """
    rows = loader.rows(slots)
    names = dict.fromkeys(row.source for row in rows)
    offsets = {name: loader.sources[name].stored.offsets().astype(np.int64) for name in names}
    places = [_places(loader, row, offsets[row.source]) for row in rows]
    wanted: dict[str, set[int]] = {name: set() for name in names}
    for row, found in zip(rows, places, strict=True):
        wanted[row.source].update(document for document, _, _ in found)
    provenance = {name: loader.sources[name].stored.provenance_of(numbers) for name, numbers in wanted.items()}
    out = []
    for row, found in zip(rows, places, strict=True):
        fragments = []
        at = 0
        for document, first, num_pairs in found:
            bounds = offsets[row.source][document : document + 2]
            tokens = loader.sources[row.source].stored.tokens(int(bounds[0]), int(bounds[1]))
            sizes = token_lengths[tokens]
            fragments.append(_fragment(provenance[row.source][document], (first, num_pairs), at, sizes))
            at += num_pairs
        out.append(ReplayedRow(row, tuple(fragments)))
    return out


def _places(loader: Loader, row: Row, offsets: np.ndarray) -> list[tuple[int, int, int]]:
    """(document, first token in it, pairs) of each fragment of a row."""
    starts, lengths = loader.sources[row.source].fragments(row.position)
    documents = np.searchsorted(offsets, np.array(starts), side="right") - 1
    return [
        (int(document), start - int(offsets[document]), length)
        for document, start, length in zip(documents, starts, lengths, strict=True)
    ]


def _fragment(known: dict[str, Any], place: tuple[int, int], at: int, sizes: np.ndarray) -> Fragment:
    first, num_pairs = place
    start, end = known["bytes"]
    includes = tuple(Span(*span) for span in known.get("includes", []))
    # Text that was taken as it stands has as many bytes as its tokens; whatever was converted has not.
    exact = not includes and int(sizes.sum()) == end - start
    span = Span(known["origin"], start, end)
    if exact:
        before = int(sizes[: first + 1].sum()) if first else 0
        span = Span(known["origin"], start + before, start + int(sizes[: first + num_pairs + 1].sum()))
    return Fragment(
        document=known["id"],
        source=known["source"],
        origin=known["origin"],
        first_pair=at,
        num_pairs=num_pairs,
        tokens=(first, first + num_pairs + 1),
        spans=(span, *includes),
        exact=exact,
        licence=known["licence"],
    )
