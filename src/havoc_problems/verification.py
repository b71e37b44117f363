"""The truth is computed twice; a problem whose two truths differ is never handed out."""

from __future__ import annotations

import math
from fractions import Fraction


def require_agreement(
    first: float | Fraction, second: float | Fraction, *, problem: str, relative: float = 1e-9, absolute: float = 1e-9
) -> None:
    """Stop where two independent computations of one number differ.

    Args:
        first: one way, such as SciPy's.
        second: the other way.
        problem: family and seed, for the message.
        relative: difference allowed, as a fraction of the larger. 1e-9 is far above float64's rounding in sums of
            ten terms and far below half a unit in the last decimal of any answer here.
        absolute: difference allowed near zero.

    Raises:
        AssertionError: they differ, or one is not a number. Raised, not asserted: `python -O` must not hide it.
    """
    if not math.isclose(first, second, rel_tol=relative, abs_tol=absolute):
        raise AssertionError(f"{problem}: one computation gives {float(first)!r}, the other {float(second)!r}")
