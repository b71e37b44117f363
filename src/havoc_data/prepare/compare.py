"""The second stage: what is decided about a document depends on all the others.

Equal documents and near-duplicates lose all but the one with the smallest stable id, a hash of where it came from; then the
held-out documents are chosen by the hash of their text. Neither depends on who looked at which part, or when.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from havoc_core.config import DeduplicationConfig
from havoc_core.errors import DataError
from havoc_data.document import MIN_HELD_OUT_BYTES
from havoc_data.prepare.comparable import empty_array
from havoc_data.prepare.duplicates import exact_duplicates, near_duplicates, repeated_paragraphs
from havoc_data.prepare.ledger import DUPLICATE, HELD_OUT, KEPT, NEAR_DUPLICATE
from havoc_data.prepare.templates import families


@dataclass(frozen=True)
class PartEntry:
    """A part that was examined."""

    source: str
    group: str
    key: str
    """Name of its folder."""


@dataclass(frozen=True)
class Verdict:
    """What was decided about the documents of one part."""

    fates: np.ndarray
    """uint8 [documents]: KEPT, HELD_OUT, DUPLICATE or NEAR_DUPLICATE."""
    survivors: np.ndarray
    """uint8 [documents, 16]: id of the document that was kept in its place, or that it resembles; zeros: none."""
    repeated: np.ndarray
    """bool [paragraphs]: those that occur in another document too, which keeps them."""


@dataclass(frozen=True)
class Comparison:
    """What was decided about all documents."""

    verdicts: tuple[Verdict, ...]
    """One a part, in the order of the parts."""
    families: tuple[tuple[int, int, int], ...]
    """(part, document, how many) of families of documents that differ in their numbers only, the largest first."""


def compare(
    parts: Sequence[PartEntry], folder: Path, *, deduplication: DeduplicationConfig, fraction: float | None
) -> Comparison:
    """Decide about all documents of all parts.

    Args:
        parts: in the order of the corpus.
        folder: of all parts.
        deduplication: the settings.
        fraction: share of each group that is held out; None: nothing is.

    Raises:
        DataError: a group is too small to hold anything out.
    """
    arrays = _Arrays(parts, folder)
    fates = np.full(arrays.total, KEPT, dtype=np.uint8)
    survivors = exact_duplicates(arrays.all("digests"), arrays.all("stable_ids"))
    fates[survivors >= 0] = DUPLICATE
    near = _near(arrays, deduplication, alive=fates == KEPT)
    drop = np.array([deduplication.actions[part.group] == "drop" for part in parts], dtype=bool)
    dropped = (near >= 0) & drop[arrays.part_of]
    fates[dropped] = NEAR_DUPLICATE
    survivors = np.where(near >= 0, near, survivors)
    # Equal to one that resembles a third and is left out for it: the third was kept.
    equal = np.flatnonzero(fates == DUPLICATE)
    equal = equal[fates[survivors[equal]] == NEAR_DUPLICATE]
    survivors[equal] = near[survivors[equal]]
    if fraction is not None:
        _hold_out(arrays, fates, fraction)
    repeated = np.zeros(arrays.first_paragraph[-1], dtype=bool)
    if deduplication.paragraphs != "off":
        hashes, offsets = arrays.paragraphs()
        repeated = repeated_paragraphs(hashes, offsets, arrays.all("stable_ids"), fates <= HELD_OUT)
        repeated &= np.repeat(fates <= HELD_OUT, np.diff(offsets))
    found = families(arrays.all("templates"))
    return Comparison(
        tuple(arrays.verdict(number, fates, survivors, repeated) for number in range(len(parts))),
        tuple((*arrays.place(first), count) for _, count, first in found),
    )


def _near(arrays: _Arrays, deduplication: DeduplicationConfig, *, alive: np.ndarray) -> np.ndarray:
    looked_at = np.array([deduplication.actions[part.group] != "off" for part in arrays.parts], dtype=bool)
    alive = alive & looked_at[arrays.part_of]
    if not alive.any():
        return np.full(arrays.total, -1, dtype=np.int64)
    with TemporaryDirectory(dir=arrays.folder, prefix=".signatures.") as beside:
        return near_duplicates(
            arrays.signatures(Path(beside)),
            arrays.all("stable_ids"),
            jaccard=deduplication.jaccard,
            shingles_of=arrays.shingles_of,
            alive=alive,
        )


def _hold_out(arrays: _Arrays, fates: np.ndarray, fraction: float) -> None:
    """Mark the documents whose hash, as a fraction of all hashes, is below `fraction`; more in hash order up to 32 KiB."""
    # The first eight bytes decide, the rest breaks ties: a number of 128 bits is too wide for numpy.
    words = arrays.all("digests").view(">u8").astype(np.uint64)
    sizes = arrays.all("text_bytes")
    groups = np.array([part.group for part in arrays.parts])
    for group in sorted(set(groups)):
        inside = np.flatnonzero((groups == group)[arrays.part_of] & (fates == KEPT))
        if not len(inside):
            continue
        in_order = inside[np.lexsort((words[inside, 1], words[inside, 0]))]
        below = int(np.searchsorted(words[in_order, 0], np.uint64(int(fraction * 2**64))))
        needed = int(np.searchsorted(np.cumsum(sizes[in_order]), MIN_HELD_OUT_BYTES)) + 1
        chosen = in_order[: max(below, needed)]
        taken, total = int(sizes[chosen].sum()), int(sizes[inside].sum())
        if taken < MIN_HELD_OUT_BYTES or 2 * taken > total:
            raise DataError(
                f"group {group}",
                f"{total:,} bytes in {len(inside):,} documents are too little to hold {MIN_HELD_OUT_BYTES:,} of them out.",
                "Add text to the group, split its files if they are few and large, or leave the group out.",
            )
        fates[chosen] = HELD_OUT


class _Arrays:
    """The arrays of all parts as if they were one; what is large stays on disk."""

    def __init__(self, parts: Sequence[PartEntry], folder: Path) -> None:
        self.parts, self.folder = parts, folder
        counts = np.array([len(self._one(number, "text_bytes")) for number in range(len(parts))], dtype=np.int64)
        self.first = np.cumsum([0, *counts])
        self.total = int(self.first[-1])
        self.part_of = np.repeat(np.arange(len(parts)), counts)
        paragraphs = [int(self._one(number, "num_paragraphs").sum()) for number in range(len(parts))]
        self.first_paragraph = np.cumsum([0, *paragraphs])
        self._shingle_ends: dict[int, np.ndarray] = {}

    def _one(self, number: int, name: str) -> np.ndarray:
        loaded: np.ndarray = np.load(self.folder / self.parts[number].key / f"{name}.npy", mmap_mode="r")
        return loaded

    def all(self, name: str) -> np.ndarray:
        """An array of all documents, in memory."""
        every = [np.asarray(self._one(number, name)) for number in range(len(self.parts))]
        return np.concatenate([empty_array(name), *every])

    def signatures(self, folder: Path) -> np.ndarray:
        """uint32 [documents, hashes], on disk: 448 bytes a document are too many for memory."""
        width = self._one(0, "signatures").shape[1]
        path = folder / "all.npy"
        whole = np.lib.format.open_memmap(path, "w+", dtype=np.uint32, shape=(self.total, width))
        if hasattr(os, "posix_fallocate"):  # else a full disk would kill the process where the map is written to
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        for number in range(len(self.parts)):
            whole[self.first[number] : self.first[number + 1]] = self._one(number, "signatures")
        return whole

    def paragraphs(self) -> tuple[np.ndarray, np.ndarray]:
        """(hashes of all paragraphs, where each document's begin)."""
        return self.all("paragraphs"), np.concatenate([[0], np.cumsum(self.all("num_paragraphs"))])

    def place(self, document: int) -> tuple[int, int]:
        """(part, number in it) of a document."""
        part = int(self.part_of[document])
        return part, document - int(self.first[part])

    def shingles_of(self, document: int) -> np.ndarray:
        """The shingles of a document, ascending."""
        part, inside = self.place(document)
        if part not in self._shingle_ends:
            self._shingle_ends[part] = np.cumsum(self._one(part, "num_shingles"))
        ends = self._shingle_ends[part]
        start = int(ends[inside - 1]) if inside else 0
        return np.asarray(self._one(part, "shingles")[start : int(ends[inside])])

    def verdict(self, number: int, fates: np.ndarray, survivors: np.ndarray, repeated: np.ndarray) -> Verdict:
        """The part's share of what was decided."""
        inside = slice(self.first[number], self.first[number + 1])
        named = np.zeros((self.first[number + 1] - self.first[number], 16), dtype=np.uint8)
        for row in np.flatnonzero(survivors[inside] >= 0):
            part, place = self.place(int(survivors[inside][row]))
            named[row] = self._one(part, "digests")[place]
        paragraphs = slice(self.first_paragraph[number], self.first_paragraph[number + 1])
        return Verdict(fates[inside], named, repeated[paragraphs])
