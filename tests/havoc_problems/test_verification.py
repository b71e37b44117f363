from __future__ import annotations

import math
from fractions import Fraction

import pytest

from havoc_problems.verification import require_agreement


def test_two_ways_to_one_number_pass():
    require_agreement(Fraction(1, 3), 1 / 3, problem="thirds 0")


@pytest.mark.parametrize("other", [0.33334, math.nan, math.inf, -1 / 3])
def test_two_numbers_that_differ_stop_the_problem(other: float):
    with pytest.raises(AssertionError, match=r"thirds 7: one computation gives 0\.333.*, the other"):
        require_agreement(Fraction(1, 3), other, problem="thirds 7")
