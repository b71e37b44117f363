"""Hashes that prove which text a step learnt from.

row = BLAKE2b-128 of its tokens, labels and segment lengths; batch = hash of the row hashes in slot order; chain = hash of the
chain so far and the batch. Ranks exchange 16 bytes a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

EMPTY_CHAIN = bytes(16)
"""The chain before the first step."""


def row_hash(inputs: np.ndarray, labels: np.ndarray, lengths: Sequence[int]) -> bytes:
    """16 bytes for one row. inputs, labels: int64 [T]."""
    digest = hashlib.blake2b(np.ascontiguousarray(inputs, dtype="<i8").data, digest_size=16)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    digest.update(np.asarray(lengths, dtype="<i8").tobytes())
    return digest.digest()


def batch_hash(rows: Iterable[bytes]) -> bytes:
    """16 bytes for the rows of a step, in slot order."""
    return hashlib.blake2b(b"".join(rows), digest_size=16).digest()


def extend_chain(chain: bytes, batch: bytes) -> bytes:
    """16 bytes for everything up to and with this batch."""
    return hashlib.blake2b(chain + batch, digest_size=16).digest()
