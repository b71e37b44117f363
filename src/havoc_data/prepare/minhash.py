"""MinHash signatures: 112 numbers per document, of which two documents share as many as their shingles are alike.

The expected share of equal numbers is the Jaccard similarity of the two sets of shingles. Made by rensa where it is
installed, else by numpy, with the same result to the bit: the hash family is written down here, and rensa is used only
if it gives the same numbers. The family is R-MinHash of rensa 0.5 (algorithm version 2), modulo 2^64 throughout:

* a_i (made odd) and b_i, for each of the k numbers, are drawn in turn from xoshiro256++, seeded by SplitMix64;
* in each of the rounds r = 0, 1, 2 a shingle h is thrown, as m = mix(h ^ b_0 ^ BUCKET_DOMAIN ^ r * ROUND_DOMAIN), into
  one of the k places, floor(k * (m mod 2^32) / 2^32), with the value r * 2^30 + floor(m / 2^34). The few m that would
  make places unequal (k * (m mod 2^32) mod 2^32 < 2^32 mod k) take the place of mix(m), the value stays;
* and it counts at every place i with 3 * 2^30 + floor((a_i * mix(h ^ a_0 ^ FALLBACK_DOMAIN) + b_i) / 2^34);
* each number is the least of all values at its place.

So a document of some hundred shingles is done after one or two rounds of one multiplication each, not 112.

Broder 1997; Dahlgaard, Knudsen & Thorup 2017, "Fast similarity sketching", arXiv:1704.04370; Blackman & Vigna 2018,
arXiv:1805.01407, for xoshiro256++.
"""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np

from havoc_core.errors import MissingPackageError
from havoc_core.log import LOGGER
from havoc_data.prepare.shingles import mix

NUM_HASHES = 112
SEED = 42
EMPTY = 0xFFFFFFFF
"""Every number of a document without shingles; no shingle has this value at all places."""
BUCKET_DOMAIN = 0x6A09E667F3BCC909
ROUND_DOMAIN = 0x3C6EF372FE94F82B
FALLBACK_DOMAIN = 0xBB67AE8584CAA73B

_NUM_ROUNDS = 3
_WORD = 2**64 - 1
_RENSA_ROWS = 255
"""Rows given to rensa at once. From 256 on it starts as many threads as there are cores, in every worker process."""
_NUMPY_SHINGLES = 65536
"""Shingles worked on at once by numpy, which needs some 50 bytes for each."""
_INSTALL = "Install it: pip install 'havoc[formats]'. Or use the implementation numpy, with the same result."

Implementation = Literal["auto", "rensa", "numpy"]


def signatures(flat: np.ndarray, offsets: np.ndarray, *, implementation: Implementation = "auto") -> np.ndarray:
    """The signature of each document.

    Args:
        flat: uint64, the shingles of all documents one after another, as from `shingle_batch`.
        offsets: int64 [n + 1]; those of document i are flat[offsets[i] : offsets[i + 1]].
        implementation: what computes them; "auto" is rensa where it is installed and gives the numbers of the format.

    Returns:
        uint32 [n, 112]; a row of EMPTY for a document without shingles.

    Raises:
        MissingPackageError: rensa was asked for by name, and is not installed or gives other numbers.
    """
    if implementation == "rensa":
        if not rensa_is_installed():
            raise MissingPackageError("implementation", "'rensa' needs the package rensa, which is missing.", _INSTALL)
        if not _rensa_is_right():
            found = "the installed rensa computes another hash family than rensa 0.5."
            raise MissingPackageError("implementation", found, _INSTALL)
    by_rensa = implementation == "rensa" or (implementation == "auto" and rensa_is_installed() and _rensa_is_right())
    flat = np.ascontiguousarray(flat, np.uint64)
    out = np.full((len(offsets) - 1, NUM_HASHES), EMPTY, np.uint32)
    if by_rensa:
        _by_rensa(flat, offsets, out)
    else:
        _by_numpy(flat, offsets, out)
    return out


@functools.cache
def rensa_is_installed() -> bool:
    """Whether the package rensa can be imported."""
    try:
        import rensa  # noqa: F401
    except ImportError:
        return False
    return True


@functools.cache
def _rensa_is_right() -> bool:
    """Whether the installed rensa gives the numbers of the format, on sets that pass through all of its branches."""
    sizes = [0, 1, 2, 8, 9, 32, 33, 128, 129, 300, 500, 3000]
    offsets = np.cumsum([0, *sizes])
    flat = mix(np.arange(offsets[-1], dtype=np.uint64))
    expected, found = np.full((2, len(sizes), NUM_HASHES), EMPTY, np.uint32)
    _by_numpy(flat, offsets, expected)
    try:
        _by_rensa(flat, offsets, found)
        right = np.array_equal(expected, found)
    except (AttributeError, TypeError, ValueError):  # a release without the method, or with other arguments
        right = False
    if not right:
        LOGGER.warning(
            "rensa: the installed version computes another hash family than rensa 0.5. "
            "Near-duplicates are found with numpy instead, with the same result."
        )
    return right


def _by_rensa(flat: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` in blocks so small that rensa stays in this thread."""
    import rensa

    for row in range(0, len(out), _RENSA_ROWS):
        bounds = np.asarray(offsets[row : row + _RENSA_ROWS + 1]).astype(np.uint64)
        block = flat[int(bounds[0]) : int(bounds[-1])]
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(block, bounds - bounds[0], NUM_HASHES, SEED)
        out[row : row + _RENSA_ROWS] = matrix.to_rows()


def _by_numpy(flat: np.ndarray, offsets: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` in blocks of bounded memory; a large document is several blocks, as minima can be taken in any order."""
    offsets = np.asarray(offsets, np.int64)
    for start in range(0, len(flat), _NUMPY_SHINGLES):
        end = min(start + _NUMPY_SHINGLES, len(flat))
        first = int(np.searchsorted(offsets, start, side="right")) - 1
        last = int(np.searchsorted(offsets, end, side="left"))
        bounds = np.clip(offsets[first : last + 1], start, end) - start
        rows = out[first:last]
        _throw(flat[start:end], bounds, rows)
    for row in np.flatnonzero(_has_larger(out, _NUM_ROUNDS << 30)).tolist():
        places = np.flatnonzero(out[row] >= _NUM_ROUNDS << 30)
        for start in range(int(offsets[row]), int(offsets[row + 1]), _NUMPY_SHINGLES // NUM_HASHES):
            end = min(start + _NUMPY_SHINGLES // NUM_HASHES, int(offsets[row + 1]))
            out[row, places] = np.minimum(out[row, places], _fallback(flat[start:end], places))


def _throw(flat: np.ndarray, bounds: np.ndarray, out: np.ndarray) -> None:
    """The rounds, for shingles of which those of row i are flat[bounds[i] : bounds[i + 1]]."""
    addends = _coefficients()[1]
    rows = np.repeat(np.arange(len(out)), np.diff(bounds))
    for number in range(_NUM_ROUNDS):
        mixed = mix(flat ^ (int(addends[0]) ^ BUCKET_DOMAIN ^ (number * ROUND_DOMAIN & _WORD)))
        values = (mixed >> 34).astype(np.uint32) | np.uint32(number << 30)
        np.minimum.at(out.reshape(-1), rows * NUM_HASHES + _places(mixed), values)
        # Later rounds have larger values: they matter only to rows with a place that is still empty.
        waiting = np.flatnonzero(_has_larger(out, (number + 1) << 30)[rows])
        flat, rows = flat[waiting], rows[waiting]


def _has_larger(rows: np.ndarray, least: int) -> np.ndarray:
    """Of each row, whether any number in it is `least` or larger."""
    return np.asarray(rows.max(axis=1, initial=0) >= least)


def _places(mixed: np.ndarray) -> np.ndarray:
    """The place of each, int64 in [0, 112), all equally likely (Lemire 2019, arXiv:1805.10941)."""
    products = (mixed & 0xFFFFFFFF) * NUM_HASHES
    again = np.flatnonzero((products & 0xFFFFFFFF) < 2**32 % NUM_HASHES)
    places = (products >> 32).astype(np.int64)
    if len(again):
        places[again] = _places(mix(mixed[again]))
    return places


def _fallback(flat: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The least value of the shingles at each of the places when no round has filled it."""
    multipliers, addends = _coefficients()
    mixed = mix(flat ^ (int(multipliers[0]) ^ FALLBACK_DOMAIN))
    ranks: np.ndarray = (mixed[:, None] * multipliers[places] + addends[places]) >> 34
    out: np.ndarray = ranks.min(axis=0).astype(np.uint32)
    return out | np.uint32(_NUM_ROUNDS << 30)


@functools.cache
def _coefficients() -> tuple[np.ndarray, np.ndarray]:
    """The a_i and b_i of the format, uint64 [112] each."""
    state = mix(np.arange(4, dtype=np.uint64) * 0x9E3779B97F4A7C15 + SEED).tolist()
    drawn = []
    for _ in range(2 * NUM_HASHES):
        drawn.append((_rotated(state[0] + state[3] & _WORD, 23) + state[0]) & _WORD)
        shifted = state[1] << 17 & _WORD
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= shifted
        state[3] = _rotated(state[3], 45)
    return np.array(drawn[0::2], np.uint64) | 1, np.array(drawn[1::2], np.uint64)


def _rotated(word: int, places: int) -> int:
    """64 bits, turned to the left."""
    return (word << places | word >> (64 - places)) & _WORD
