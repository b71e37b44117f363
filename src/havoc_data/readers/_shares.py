"""How the bytes of a file are shared out among the texts that were made from it, where no text has bytes of its own."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate


def share_out(start: int, end: int, lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Ranges that lie side by side and cover [start, end), one for each text, in proportion to its length.

    Args:
        start: first byte.
        end: one past the last byte.
        lengths: of the texts, in any unit, none negative. If all are 0 the last takes everything.

    Returns:
        (start, end) of each; empty for no texts. A text may get no byte where there are more texts than bytes.
    """
    sums = list(accumulate(lengths))
    if not sums:
        return []
    total = sums[-1]
    ends = [start + (end - start) * done // total if total else start for done in sums[:-1]] + [end]
    return list(zip([start, *ends[:-1]], ends, strict=True))
