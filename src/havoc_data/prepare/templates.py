"""Families of documents that were filled in from one template: texts that differ in their numbers only.

"600 files differ only in numbers" is worth knowing, and no reason to delete: exercises with other numbers are wanted,
pages of a catalogue may not be. So families are counted here, and nothing is left out.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

_DIGITS = bytes.maketrans(b"0123456789", b"0" * 10)
_MARK = b"\0"
_SIGNED = re.compile(rb"(?<![\w)\]}\0\x80-\xff])(?:[-+]|\xe2\x88\x92)\0")  # a sign, but not the minus of "a-1"
_SIGNS = (b"-" + _MARK, b"+" + _MARK, "\u2212".encode() + _MARK)
_EXPONENTS = tuple(letter + sign for letter in (b"e", b"E") for sign in (b"", b"-", b"+", "\u2212".encode()))


def template_key(text: str) -> int:
    """A hash that is the same for texts that differ in their numbers and white space only.

    A number is 12, 3.14, .5, 1,000 or 6.02e-23, wherever it stands, with its sign where that is no operator: "x = -3"
    and "x = 12" are of one template, "5-3" and "5+3" are not.

    Returns:
        64 bits: BLAKE2b (RFC 7693, 8-byte digest), little end first, of the UTF-8 text with every number made 0, then
        every run of white space one space.
    """
    # With methods of bytes throughout: a regular expression that finds numbers takes ten times as long.
    masked = text.encode("utf-8", "surrogatepass").translate(_DIGITS, _MARK)
    for _ in range(2):  # thousands; a million has two commas, and one is found at a time
        masked = masked.replace(b"0,000", b"0000")
    masked = _MARK.join(_runs_of_zeros(masked))
    masked = masked.replace(_MARK + b"." + _MARK, _MARK).replace(b"." + _MARK, _MARK)
    for exponent in _EXPONENTS:
        masked = masked.replace(_MARK + exponent + _MARK, _MARK)
    if any(sign in masked for sign in _SIGNS):
        masked = _SIGNED.sub(_MARK, masked)
    masked = b" ".join(masked.replace(_MARK, b"0").split())
    return int.from_bytes(hashlib.blake2b(masked, digest_size=8).digest(), "little")


def _runs_of_zeros(data: bytes) -> list[bytes]:
    """What stands between runs of zeros; joined by a mark, each run is one mark."""
    pieces = data.split(b"0")
    inner = [piece for piece in pieces[1:-1] if piece]
    return [pieces[0], *inner, pieces[-1]] if len(pieces) > 1 else pieces


def families(keys: np.ndarray, *, at_least: int = 3) -> list[tuple[int, int, int]]:
    """The templates that several documents share.

    Args:
        keys: uint64, from `template_key`, one a document. Equal documents count each: leave them out beforehand.
        at_least: documents that make a family.

    Returns:
        (key, number of documents, index of the first) of each family, the largest first, then by key.
    """
    found, first, counts = np.unique(keys, return_index=True, return_counts=True)
    large = np.flatnonzero(counts >= at_least)
    large = large[np.argsort(-counts[large], kind="stable")]
    return [(int(found[place]), int(counts[place]), int(first[place])) for place in large]
