"""A keyed shuffle of [0, n) that is computed, not stored.

A balanced Feistel network on the next power of four, walked along its cycles until it lands below n. Six rounds with
SplitMix64's finaliser (Steele, Lea & Flood 2014) as the round function: a multiply-mod round leaves the low bits
predictable. Integer arithmetic only, so the order is the same on every platform and with every numpy.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_ROUNDS = 6
_EIGHTHS = np.array([0, 7, 3, 4, 1, 6, 2, 5])  # low with high, so that half a block is balanced too


def permute(indices: np.ndarray, n: int, key: bytes) -> np.ndarray:
    """Where each index goes in the shuffle that `key` names.

    Args:
        indices: integers in [0, n).
        n: length of the shuffle.
        key: any bytes; another key is another shuffle.

    Returns:
        int64, the shape of `indices`.
    """
    half_bits = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    digest = hashlib.blake2b(key, digest_size=8 * _ROUNDS).digest()
    round_keys = np.frombuffer(digest, dtype="<u8")
    out = np.asarray(indices).astype(np.uint64).ravel()
    outside = np.arange(len(out))
    while len(outside):
        out[outside] = _feistel(out[outside], half_bits, round_keys)
        outside = outside[out[outside] >= np.uint64(n)]
    return out.astype(np.int64).reshape(np.shape(indices))


def spread(indices: np.ndarray, n: int, key: bytes) -> np.ndarray:
    """A keyed shuffle of [0, n) in which every eight neighbours come from the eight eighths of [0, n), one from each.

    For rows in order of how full they are: any stretch of the shuffle then holds nearly its share of their tokens,
    where a plain shuffle would let the shares of the mixture swing with the luck of the draw.

    Args:
        indices: integers in [0, n).
        n: length of the shuffle.
        key: any bytes; another key is another shuffle.

    Returns:
        int64, the shape of `indices`.
    """
    width = n // len(_EIGHTHS)
    at = np.asarray(indices, dtype=np.int64)
    if width == 0:
        return permute(at, n, key)
    rest = n % len(_EIGHTHS)  # these, from the middle, come last
    middle = (n - rest) // 2
    block, inside = np.divmod(at, len(_EIGHTHS))
    eighth = _EIGHTHS[inside]
    # One shuffle serves all eighths, each begun at another place of it.
    place = permute((block + eighth * (width // len(_EIGHTHS) + 1)) % width, width, key)
    out: np.ndarray = eighth * width + place
    out += np.where(out >= middle, rest, 0)
    last = at >= width * len(_EIGHTHS)
    out[last] = middle + at[last] - width * len(_EIGHTHS)
    return out


def _feistel(x: np.ndarray, half_bits: np.uint64, round_keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    left, right = x >> half_bits, x & mask
    for key in round_keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    joined: np.ndarray = (left << half_bits) | right
    return joined


def _mix(x: np.ndarray) -> Any:
    with np.errstate(over="ignore"):  # wrapping round 2^64 is meant
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
