from __future__ import annotations

import pytest

from havoc_problems.units import conversion, same_unit


@pytest.mark.parametrize(
    ("found", "asked", "factor"),
    [
        ("m", "mm", 1000.0),
        ("cm", "mm", 10.0),
        ("km", "m", 1000.0),
        ("kN", "N", 1000.0),
        ("N/mm^2", "MPa", 1.0),
        ("N/mm2", "MPa", 1.0),
        ("GPa", "MPa", 1000.0),
        ("kPa", "Pa", 1000.0),
        ("kN*m", "Nm", 1000.0),
        ("N m", "Nm", 1.0),
        ("%", None, 0.01),
        ("\\%", None, 0.01),
        ("percent", "%", 1.0),
        ("min", "s", 60.0),
        ("widgets", "widgets", 1.0),
    ],
)
def test_units_of_one_quantity_convert(found: str, asked: str | None, factor: float):
    assert conversion(found, asked) == pytest.approx(factor, rel=1e-12)  # one rounding of float64 in the quotient


@pytest.mark.parametrize(
    ("found", "asked"),
    [("N", "mm"), ("mPa", "MPa"), ("mm", None), ("mm", "furlong"), ("furlong", "mm"), ("%", "mm"), ("MM", "mm")],
)
def test_other_quantities_and_unknown_units_do_not_convert(found: str, asked: str | None):
    assert conversion(found, asked) is None


def test_a_unit_may_be_written_with_a_dot_a_space_or_nothing():
    assert same_unit("N * m", "Nm")
    assert not same_unit("mN", "Nm")
