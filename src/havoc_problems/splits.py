"""Training and examination never meet.

Two walls. Seeds: training uses even ones, the exam odd ones. But two seeds can give the same problem, so the wall
that counts is drawn through the statements: a hash of the numbers in a statement decides on which side it
belongs, whatever seed, phrasing or count it came from. Training leaves out what belongs to the exam, and the exam
takes nothing else.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

Split = Literal["training", "exam"]

EXAM_SHARE = 16
"""One in so many statements belongs to the exam. Changing it moves problems from one side to the other."""

_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def training_seed(index: int) -> int:
    """The seed of the training problem at `index` >= 0: even.

    Raises:
        ValueError: index is negative.
    """
    return 2 * _checked(index)


def exam_seed(index: int) -> int:
    """The seed of the exam problem at `index` >= 0: odd.

    Raises:
        ValueError: index is negative.
    """
    return 2 * _checked(index) + 1


def split_of(seed: int) -> Split:
    """The side a seed belongs to."""
    return "training" if seed % 2 == 0 else "exam"


def reserved_for_exam(statement: str) -> bool:
    """Whether a statement belongs to the exam; true of one in EXAM_SHARE.

    Decided by the numbers in it, without signs and in sorted order: the same problem in other words, with its
    data or its equations in another order, or with another question about the same data, stays on the same side.
    A statement without numbers is decided by its words.
    """
    numbers = sorted(_plain(number) for number in _NUMBER.findall(statement))
    key = " ".join(numbers) if numbers else " ".join(statement.casefold().split())
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % EXAM_SHARE == 0


def _plain(number: str) -> str:
    # 2.50, 02.5 and 2.5 are one number.
    whole, _, decimals = number.partition(".")
    decimals = decimals.rstrip("0")
    whole = whole.lstrip("0") or "0"
    return f"{whole}.{decimals}" if decimals else whole


def _checked(index: int) -> int:
    if index < 0:
        raise ValueError(f"the index of a problem is 0 or more, found {index}")
    return index
