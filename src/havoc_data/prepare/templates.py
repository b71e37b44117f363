"""Families of documents that were filled in from one template: texts that differ in their numbers only.

"600 files differ only in numbers" is worth knowing, and no reason to delete: exercises with other numbers are wanted,
pages of a catalogue may not be. So families are counted here, and nothing is left out.
"""

from __future__ import annotations

import hashlib
import re

import numpy as np

# In two steps, since a pattern that begins with a digit is searched for five times as fast as one with an optional sign.
_NUMBER = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?:[eE][-+\u2212]?[0-9]+)?")
_MARK = "\0"
_SIGNED = re.compile(r"(?<![\w)\]}\0])[-+\u2212]\0")  # a sign, but not the minus of "a-1"


def template_key(text: str) -> int:
    """A hash that is the same for texts that differ in their numbers and white space only.

    A number is 12, 3.14, .5, 1,000 or 6.02e-23, wherever it stands, with its sign where that is no operator: "x = -3"
    and "x = 12" are of one template, "5-3" and "5+3" are not.

    Returns:
        64 bits: BLAKE2b (RFC 7693, 8-byte digest), little end first, of the UTF-8 text with every number made 0, then
        every run of white space one space.
    """
    masked = _NUMBER.sub(_MARK, text.replace(_MARK, "")).replace("." + _MARK, _MARK)
    if any(sign + _MARK in masked for sign in "-+\u2212"):
        masked = _SIGNED.sub(_MARK, masked)
    masked = " ".join(masked.replace(_MARK, "0").split())
    digest = hashlib.blake2b(masked.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


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
