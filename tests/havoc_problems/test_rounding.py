from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_problems.rounding import decimal_text, factor_text, rounded, short_text


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (Fraction(5, 2), 0, "3"),  # round() gives 2
        (Fraction(-5, 2), 0, "-3"),
        (Fraction(2675, 1000), 2, "2.68"),  # round(2.675, 2) gives 2.67
        (Fraction(-1, 1000), 2, "0.00"),  # no minus before a zero
        (7, 2, "7.00"),
        (0.5, 1, "0.5"),
        (Fraction(-1, 8), 2, "-0.13"),
    ],
)
def test_halves_go_away_from_zero(value: Fraction | float, decimals: int, text: str):
    assert decimal_text(value, decimals) == text


@given(st.fractions(max_denominator=10**6), st.integers(0, 8))
def test_rounding_moves_a_number_by_at_most_half_a_unit(value: Fraction, decimals: int):
    assert abs(rounded(value, decimals) - value) <= Fraction(1, 2 * 10**decimals)
    assert Fraction(decimal_text(value, decimals)) == rounded(value, decimals)


def test_short_text_drops_only_zeros_after_the_point():
    assert [short_text(v) for v in (100, 2.5, Fraction(1, 3), -40, 0)] == ["100", "2.5", "0.333333", "-40", "0"]


def test_negative_factors_stand_in_parentheses():
    assert (factor_text(-2), factor_text(2.5)) == ("(-2)", "2.5")
