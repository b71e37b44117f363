"""What the comparison of all documents needs of each: a few hundred numbers in place of the text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from havoc_data.document import Document
from havoc_data.prepare.duplicates import paragraph_hashes
from havoc_data.prepare.minhash import NUM_HASHES, signatures
from havoc_data.prepare.shingles import shingle_batch
from havoc_data.prepare.templates import template_key

ARRAYS = {
    "digests": ("uint8", 16),
    "stable_ids": ("uint8", 16),
    "text_bytes": ("int64", 0),
    "templates": ("uint64", 0),
    "signatures": ("uint32", NUM_HASHES),
    "shingles": ("uint32", 0),
    "num_shingles": ("int64", 0),
    "paragraphs": ("uint64", 0),
    "paragraph_bytes": ("uint32", 0),
    "num_paragraphs": ("int64", 0),
}
"""Name -> (dtype, columns; 0: it is no table) of the arrays of a part: one row a document, or as many as num_shingles and
num_paragraphs say. Shingles are the upper halves of the hashes, ascending: enough to tell how alike two documents are."""


def empty_array(name: str) -> np.ndarray:
    """The array of a part without documents."""
    dtype, columns = ARRAYS[name]
    return np.zeros((0, columns) if columns else 0, dtype=dtype)


def write_array(path: Path, array: np.ndarray) -> None:
    """As numpy.save, whose error for a full disk does not say that the disk is full.

    Raises:
        OSError: there is no space; with its number.
    """
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.tobytes())


@dataclass(frozen=True)
class LookedAt:
    """A document and what was found in it."""

    document: Document
    text: str
    """Of a dialog, its contents one after another."""
    raw: bytes
    """The text in UTF-8."""
    flags: tuple[str, ...]
    """Rules that fired, and "exam" if it holds an examination question."""

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for what is learnt, wherever it came from."""
        if not self.document.messages:
            return hashlib.blake2b(self.raw, digest_size=16).digest()
        content = json.dumps(self.document.messages, ensure_ascii=False).encode()
        return hashlib.blake2b(content, digest_size=16, person=b"messages").digest()

    def stable_id(self, source: str) -> bytes:
        """16 bytes that stand for where it came from."""
        place = f"{source}\n{self.document.origin}\n{self.document.ordinal}"
        return hashlib.blake2b(place.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def arrays_of(batch: Sequence[LookedAt], *, source: str, near: bool) -> dict[str, np.ndarray]:
    """The rows of ARRAYS for some documents.

    Args:
        batch: the documents.
        source: name of the source.
        near: whether near-duplicates are looked for; if not, there are no shingles.
    """
    hashes, offsets = np.zeros(0, dtype=np.uint64), np.zeros(len(batch) + 1, dtype=np.int64)
    if near:
        hashes, offsets = shingle_batch([each.text for each in batch])
    # A dialog is learnt whole: nothing is cut out of what somebody said.
    texts = ["" if each.document.messages else each.text for each in batch]
    found = [paragraph_hashes(text) for text in texts]
    return {
        "digests": _ids([each.digest for each in batch]),
        "stable_ids": _ids([each.stable_id(source) for each in batch]),
        "text_bytes": np.array([len(each.raw) for each in batch], dtype=np.int64),
        "templates": np.array([template_key(each.text) for each in batch], dtype=np.uint64),
        "signatures": signatures(hashes, offsets),
        "shingles": (hashes >> np.uint64(32)).astype(np.uint32),
        "num_shingles": np.diff(offsets),
        "paragraphs": np.concatenate([empty_array("paragraphs"), *(hashes for hashes, _ in found)]),
        "paragraph_bytes": np.concatenate([empty_array("paragraph_bytes"), *(sizes for _, sizes in found)]),
        "num_paragraphs": np.array([len(sizes) for _, sizes in found], dtype=np.int64),
    }


def _ids(values: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, 16)
