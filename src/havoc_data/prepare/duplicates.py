"""Which documents and paragraphs occur more than once, and which of them survives.

Of several that are alike the one with the smallest stable id survives. Ids come from contents and origin, so the
outcome depends on nothing but the documents: not on their order, nor on who worked on which of them.

Near-duplicates are looked for with MinHash and locality-sensitive hashing: 14 bands of 8 numbers of the signature;
documents with an equal band are candidates, and of those only pairs whose shingles really are alike count. One
arrangement of the 112 numbers into 14 x 8 finds a pair of Jaccard similarity s with probability 1 - (1 - s^8)^14, which
is 0.924 at s = 0.8. So the same numbers are arranged twice, in order and with a stride of 14, no two of them in the
same band both times. That finds 0.987 at s = 0.8 (measured on 6,000 pairs of 270 to 720 shingles; 0.994 if the
arrangements were independent), for no further hashing.

Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", chapter 3, for bands; Penedo et al. 2024,
arXiv:2406.17557, for 14 x 8 on 5-grams.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from havoc_data.prepare.minhash import EMPTY, NUM_HASHES
from havoc_data.prepare.shingles import mix

NUM_BANDS = 14
BAND_ROWS = 8
PARAGRAPH_CHARACTERS = 200
"""Shorter paragraphs recur in honest text: headings, formulas, phrases. White space counts once."""
CANDIDATES_PER_BUCKET = 256
"""Survivors of a bucket, those with the smallest ids, that later documents of the bucket are compared with."""
CHECKS_PER_DOCUMENT = 32
"""Candidates, those that share most of the signature, whose shingles are compared one by one."""

_ROWS = 65536
"""Signatures that are read at once."""
_RECENT = 4_000_000
"""Shingles of documents looked at lately that are kept: 32 MB."""
_BLANK_LINES = re.compile(r"\n[ \t\r]*\n")


def exact_duplicates(digests: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Which documents are equal to one with a smaller id.

    Args:
        digests: uint8 [n, 16], of the contents.
        ids: uint8 [n, 16], stable and distinct; compared from the first byte on.

    Returns:
        int64 [n]: -1 for a survivor, else the index of the survivor that it is equal to.
    """
    order = np.lexsort((*_sort_keys(ids), *_sort_keys(digests)))
    ordered = digests[order]
    first = np.ones(len(order), bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    groups = np.cumsum(first) - 1
    out = np.empty(len(order), np.int64)
    out[order] = np.where(first, -1, order[np.flatnonzero(first)[groups]])
    return out


def near_duplicates(
    signatures: np.ndarray,
    ids: np.ndarray,
    *,
    jaccard: float,
    shingles_of: Callable[[int], np.ndarray],
    alive: np.ndarray,
) -> np.ndarray:
    """Which documents are alike to a survivor with a smaller id.

    Documents are gone through in the order of their ids. One is left out if, and only if, a candidate that has
    survived so far has at least `jaccard` of its shingles in common with it. So each one that is left out names a
    survivor that truly resembles it, and no chain of small changes takes a document with it that resembles none.

    The work is bounded, whatever the documents are: of each bucket (the documents with one band in common) only the
    256 survivors with the smallest ids are candidates; of a document's candidates only those count whose signatures
    agree to within four standard deviations of `jaccard`, and only the 32 that agree most, of equal ones those with
    the smallest ids, are checked. So 100,000 copies of one page cost one check each, and 10,000 pages of one template
    that differ by more than `jaccard` cost at most 256 comparisons of signatures a bucket and 32 checks each; there, a
    pair just above `jaccard` may be missed. The bounds depend on ids and contents only.

    Args:
        signatures: uint32 [n, 112], as from `minhash.signatures`; may be a memory map, it is read band by band.
        ids: uint8 [n, 16], stable and distinct.
        jaccard: share of common shingles, of all that either has, from which two documents are alike; above 0.
        shingles_of: index of a document -> its shingles, uint64, ascending and each once. Asked for candidates only.
        alive: bool [n]; the others are neither left out nor named. A document without shingles is never alike to any.

    Returns:
        int64 [n]: -1, or the index of the survivor: of those that were checked and are alike, the one whose
        signature agrees most, and of these the one with the smallest id.
    """
    out = np.full(len(ids), -1, np.int64)
    order = np.lexsort(_sort_keys(ids))
    order = order[(alive & _has_shingles(signatures))[order]]
    buckets, members, starts = _buckets(signatures, order)
    # Where a bucket's survivors are written over its members: the k-th survivor comes no earlier than the k-th member.
    num_kept = np.zeros(len(starts), np.int64)
    recent = _Recent(shingles_of)
    for position in np.flatnonzero(np.diff(buckets.offsets)).tolist():
        own = buckets.of(position)
        kept = [members[starts[bucket] : starts[bucket] + num_kept[bucket]] for bucket in own if num_kept[bucket]]
        index = int(order[position])
        if kept:
            candidates = order[np.unique(np.concatenate(kept))]
            out[index] = _alike(index, _nearest(signatures, index, candidates, jaccard), jaccard, recent)
        if out[index] < 0:
            own = own[num_kept[own] < CANDIDATES_PER_BUCKET]
            members[starts[own] + num_kept[own]] = position
            num_kept[own] += 1
    return out


def bands() -> np.ndarray:
    """Which numbers of a signature form a band, int64 [28, 8]: first in order, then with a stride of 14."""
    numbers = np.arange(NUM_HASHES)
    return np.concatenate([numbers.reshape(NUM_BANDS, BAND_ROWS), numbers.reshape(BAND_ROWS, NUM_BANDS).T])


def similarity(first: np.ndarray, second: np.ndarray) -> float:
    """The Jaccard similarity of two sets of shingles, ascending and each once; 0 where both are empty."""
    if not len(first) or not len(second):
        return 0.0
    places = np.minimum(np.searchsorted(first, second), len(first) - 1)
    num_common = int(np.count_nonzero(first[places] == second))
    return num_common / (len(first) + len(second) - num_common)


def paragraphs(text: str) -> list[tuple[int, int]]:
    """Where the paragraphs of at least 200 characters are: (start, end), without the white space around them.

    Paragraphs are what blank lines separate. White space counts as one character however long it is.
    """
    return [(start, end) for start, end, _ in _paragraphs(text)]


def paragraph_hashes(text: str) -> tuple[np.ndarray, np.ndarray]:
    """The paragraphs of a text as (hashes uint64, bytes uint32), in the order of `paragraphs`.

    Equal paragraphs have the same hash, however their white space is broken: the first 8 bytes of BLAKE2b (RFC 7693, 8-byte
    digest), little end first, of the UTF-8 text with every run of white space made one space.
    """
    digests, sizes = [], []
    for start, end, folded in _paragraphs(text):
        digests.append(hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        sizes.append(len(text[start:end].encode("utf-8", "surrogatepass")))
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64), np.array(sizes, dtype=np.uint32)


def _paragraphs(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, the paragraph with every run of white space made one space) of each."""
    edges = [0]
    if "\n" in text:
        for gap in _BLANK_LINES.finditer(text):
            edges += [gap.start(), gap.end()]
    edges.append(len(text))
    for start, end in zip(edges[0::2], edges[1::2], strict=True):
        if end - start >= PARAGRAPH_CHARACTERS:
            piece = text[start:end]
            folded = _folded(piece)
            if len(folded) >= PARAGRAPH_CHARACTERS:
                yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip()), folded


def repeated_paragraphs(hashes: np.ndarray, offsets: np.ndarray, ids: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Which paragraphs occur in another document with a smaller id.

    Args:
        hashes: uint64, those of all documents one after another.
        offsets: int64 [n + 1]; those of document i are hashes[offsets[i] : offsets[i + 1]].
        ids: uint8 [n, 16], stable and distinct.
        alive: bool [n]; the paragraphs of the others are neither marked nor the reason for a mark.

    Returns:
        bool, as long as `hashes`. A paragraph that comes twice in the first document that has it is not marked.
    """
    ranks = np.empty(len(ids), np.int64)
    ranks[np.lexsort(_sort_keys(ids))] = np.arange(len(ids))
    counts = np.diff(offsets)
    places = np.flatnonzero(np.repeat(alive, counts))
    owners = np.repeat(ranks, counts)[places]
    order = np.lexsort((owners, hashes[places]))
    places, owners = places[order], owners[order]
    found = hashes[places]
    first = np.ones(len(found), bool)
    first[1:] = found[1:] != found[:-1]
    first_owners = owners[np.flatnonzero(first)[np.cumsum(first) - 1]]
    out = np.zeros(len(hashes), bool)
    out[places] = owners > first_owners
    return out


class _Buckets:
    """The buckets of every document.

    Args:
        numbers: of the buckets, those of one document side by side.
        offsets: [n + 1], where the documents' numbers are.
    """

    def __init__(self, numbers: np.ndarray, offsets: np.ndarray) -> None:
        self.numbers = numbers
        self.offsets = offsets

    def of(self, position: int) -> np.ndarray:
        """The buckets of one document."""
        return self.numbers[self.offsets[position] : self.offsets[position + 1]]


class _Recent:
    """Sets of shingles, of which the last used are kept."""

    def __init__(self, shingles_of: Callable[[int], np.ndarray]) -> None:
        self._shingles_of = shingles_of
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._size = 0

    def __getitem__(self, index: int) -> np.ndarray:
        found = self._kept.pop(index, None)
        if found is None:
            found = self._shingles_of(index)
            self._size += len(found)
        self._kept[index] = found
        while self._size > _RECENT and len(self._kept) > 1:
            self._size -= len(self._kept.popitem(last=False)[1])
        return found


def _sort_keys(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys for lexsort that put rows of 16 bytes in order."""
    words = np.ascontiguousarray(ids).view(">u8").astype(np.uint64)
    return words[:, 1], words[:, 0]


def _blocks(signatures: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """The signatures in the order in which they lie on disk, some at a time."""
    for start in range(0, len(signatures), _ROWS):
        rows = slice(start, start + _ROWS)
        yield rows, np.asarray(signatures[rows])


def _has_shingles(signatures: np.ndarray) -> np.ndarray:
    """Of each document, whether it has any."""
    out = np.empty(len(signatures), bool)
    for rows, block in _blocks(signatures):
        out[rows] = (block != EMPTY).any(axis=1)
    return out


def _buckets(signatures: np.ndarray, order: np.ndarray) -> tuple[_Buckets, np.ndarray, np.ndarray]:
    """All buckets of two documents or more; made one band at a time.

    Returns:
        The buckets of each document; the members of all buckets one after another, in the order of their ids, as
        positions in `order`; and where each bucket's members start.
    """
    kind = np.int32 if len(order) * 2 * NUM_BANDS < 2**31 else np.int64
    members: list[np.ndarray] = [np.empty(0, kind)]
    sizes: list[np.ndarray] = [np.empty(0, np.int64)]
    for band in bands():
        keys = np.empty(len(signatures), np.uint64)
        for rows, block in _blocks(signatures):
            keys[rows] = _band_keys(block[:, band])
        keys = keys[order]
        by_key = np.argsort(keys, kind="stable")  # stable: within a bucket, members stay in the order of their ids
        keys = keys[by_key]
        edges = (
            np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]])) if len(keys) else np.zeros(1, int)
        )
        lengths = np.diff(edges)
        members.append(by_key[np.repeat(lengths > 1, lengths)].astype(kind))
        sizes.append(lengths[lengths > 1])
    all_members, all_sizes = np.concatenate(members), np.concatenate(sizes)
    starts = np.cumsum(all_sizes) - all_sizes
    numbers = np.repeat(np.arange(len(all_sizes), dtype=kind), all_sizes)
    numbers = numbers[np.argsort(all_members, kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(all_members, minlength=len(order)))])
    return _Buckets(numbers, offsets), all_members, starts


def _band_keys(rows: np.ndarray) -> np.ndarray:
    """A hash of each row of 8 numbers. Should two be equal by chance, they become candidates, no more."""
    keys = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        keys = mix(keys ^ column)
    return keys


def _nearest(signatures: np.ndarray, index: int, candidates: np.ndarray, jaccard: float) -> np.ndarray:
    """The candidates worth a check, those that agree most first; `candidates` are in the order of their ids."""
    agreements = np.count_nonzero(signatures[candidates] == signatures[index], axis=1)
    least = NUM_HASHES * jaccard - 4 * math.sqrt(NUM_HASHES * jaccard * (1 - jaccard))
    candidates, agreements = candidates[agreements >= least], agreements[agreements >= least]
    return candidates[np.argsort(-agreements, kind="stable")[:CHECKS_PER_DOCUMENT]]


def _alike(index: int, candidates: np.ndarray, jaccard: float, shingles_of: _Recent) -> int:
    """The first of the candidates that is alike, or -1."""
    for candidate in candidates.tolist():
        if similarity(shingles_of[candidate], shingles_of[index]) >= jaccard:
            return int(candidate)
    return -1


def _folded(text: str) -> str:
    """The text with every run of white space made one space, and none around it."""
    return " ".join(text.split())
