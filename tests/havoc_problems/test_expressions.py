from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_problems.expressions import ExpressionError, are_equal, letters_of


@pytest.mark.parametrize(
    "other",
    ["6x + 2", "2 + 6*x", "2(3x + 1)", "6.0x+2", "x*6 - -2", "(6x^2 + 2x)/x", "3(x+1)^2 - 3x**2 - 1", "12x/2 + 2",
     "+6x+2", "(3x+1)(x+1) + (3x+1)(1-x)"],
)  # fmt: skip
def test_equal_expressions_are_equal_however_written(other: str):
    assert are_equal("6x + 2", other, letters=["x"])


@pytest.mark.parametrize("other", ["6x - 2", "6x^2", "6", "0", "x", "6x + 2.000001", "1/(6x+2)"])
def test_other_expressions_are_not_equal(other: str):
    assert not are_equal("6x + 2", other, letters=["x"])


def test_a_minus_before_a_power_stays_outside_it():
    assert are_equal("-x^2", "0 - x*x", letters=["x"])
    assert not are_equal("-x^2", "(-x)^2", letters=["x"])


def test_division_goes_from_left_to_right():
    assert are_equal("1/2x", "x/2", letters=["x"])
    assert are_equal("8/4/2", "1", letters=["x"])


def test_powers_go_from_right_to_left_and_may_be_negative():
    assert are_equal("x^2^3", "x^8", letters=["x"])
    assert are_equal("x^-2", "1/(x x)", letters=["x"])
    assert are_equal("x^0", "1", letters=["x"])


def test_several_letters_stand_side_by_side():
    assert are_equal("(a+b)(a-b)", "aa - b^2", letters=letters_of("(a+b)(a-b)"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ends too early"),
        ("6x +", "ends too early"),
        ("(6x + 2", "not closed"),
        ("6x + 2)", r"'\)' is not expected"),
        ("6y + 2", "'y' is not expected"),
        ("x2", "'2' is not expected"),
        ("6x = 2", "'=' is not expected"),
        ("__import__('os')", "'_' is not expected"),
        ("1/(x - x)", "divides by zero"),
        ("x/0", "divides by zero"),
        ("0^-1", "divides by zero"),
        ("x^x", "not a whole number"),
        ("x^0.5", "not a whole number"),
        ("9**9**9**9", "not a whole number"),
        ("x^25", "not a whole number"),
        ("(" * 30 + "x" + ")" * 30, "nested too deeply"),
        ("2^" * 30 + "1", "nested too deeply"),
        ("((x^24)^24)^24", "degree exceeds"),
        ("((((9^24)^24)^24)^24)^24", "too large"),
        ("x+" * 150 + "x", "longer than 200"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_reason(text: str, why: str):
    with pytest.raises(ExpressionError, match=why):
        are_equal("6x + 2", text, letters=["x"])


def test_a_power_with_too_many_terms_runs_out_of_work():
    with pytest.raises(ExpressionError, match="too much work"):
        are_equal("a+b+c+d+e", "(a+b+c+d+e)^24", letters=list("abcde"))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789x+-*/^(). ", max_size=200))
def test_no_text_of_the_right_letters_breaks_or_hangs_the_reader(text: str):
    start = time.process_time()
    try:
        assert are_equal("6x + 2", text, letters=["x"]) in (True, False)
    except ExpressionError:
        pass
    assert time.process_time() - start < 2.0  # the budget allows some tens of milliseconds; 2 s is a hang


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=5), st.integers(-5, 5))
def test_horners_form_equals_the_sum_of_powers(coefficients: list[int], shift: int):
    powers = " + ".join(f"({c})*x^{i}" for i, c in enumerate(coefficients))
    horner = "0"
    for coefficient in reversed(coefficients):
        horner = f"({horner})x + ({coefficient})"
    assert are_equal(powers, horner, letters=["x"])
    assert are_equal(powers, f"{horner} + ({shift})", letters=["x"]) == (shift == 0)
