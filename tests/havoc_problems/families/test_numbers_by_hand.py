"""Each family against numbers from a book or from a calculation on paper."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from scipy import stats

from havoc_problems.families import (
    beam_deflection,
    binomial_probability,
    confidence_interval,
    derivative,
    factorial_effect,
    simple_regression,
    xbar_limits,
)
from havoc_problems.problem import Problem


def problems_of(build, count: int = 300) -> list[Problem]:
    return [build(seed) for seed in range(count)]


def test_the_series_of_the_t_distribution_gives_the_printed_quantiles():
    # Two-sided 95%: Fisher & Yates, table III.
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 19: 2.093}
    found = {df: round(confidence_interval.t_quantile_by_series(df, level=95), 3) for df in printed}
    assert found == printed


@pytest.mark.parametrize("level", confidence_interval.CONFIDENCES)
def test_the_series_of_the_t_distribution_agrees_with_scipy(level: int):
    for degrees in range(1, 30):
        ours = confidence_interval.t_quantile_by_series(degrees, level=level)
        # 1e-10: SciPy's own inverse is good to about 1e-12 relative.
        assert ours == pytest.approx(stats.t.ppf(0.5 + level / 200, degrees), rel=1e-10)


def test_the_integral_of_a2_rounds_to_the_printed_table():
    printed = {2: "1.880", 3: "1.023", 4: "0.729", 5: "0.577", 6: "0.483", 7: "0.419", 8: "0.373"}
    assert {n: f"{xbar_limits.a2_by_integration(n):.3f}" for n in range(2, 9)} == printed == xbar_limits.A2_TABLE


def test_sympy_integrates_the_beam_equation_to_the_printed_divisors():
    assert beam_deflection.divisor_by_integration("cantilever") == 3
    assert beam_deflection.divisor_by_integration("simply supported") == 48


def test_the_deflection_of_a_beam_by_hand_in_newtons_and_metres():
    beam = beam_deflection.Beam(support="cantilever", material="steel", force=3, length=Fraction(2), inertia=400)
    newton_metres = 3000 * 2**3 / (3 * 200e9 * 400e-8)
    assert float(beam.deflection(3)) == pytest.approx(1000 * newton_metres, rel=1e-12)  # the same in other units


def test_the_effects_of_a_design_by_hand():
    # Montgomery, Design and Analysis of Experiments, section 6.2, totals of a 2^2 with three replicates.
    totals = factorial_effect.Experiment(("concentration", "catalyst"), (80, 100, 60, 90))
    effects = [totals.size(effect) / 3 for effect in ((0,), (1,), (0, 1))]
    assert [float(round(effect, 2)) for effect in effects] == [8.33, -5.0, 1.67]


def test_an_interaction_of_two_out_of_three_factors_by_hand():
    cube = factorial_effect.Experiment(("a", "b", "c"), (1, 2, 3, 4, 5, 6, 7, 16))
    # + where a and c agree: runs 1, 3, 6, 8.
    assert cube.size((0, 2)) == Fraction(1 + 3 + 6 + 16, 4) - Fraction(2 + 4 + 5 + 7, 4)


def test_the_line_through_points_on_a_line_is_that_line():
    sums = simple_regression.Sums(n=3, x=6, y=15, xx=14, xy=34)  # (1, 3), (2, 5), (3, 7): y = 1 + 2x
    assert (sums.slope(), sums.intercept()) == (2, 1)


@pytest.mark.parametrize(
    ("coefficients", "text"),
    [([3, 0, -1], "3x^2 - 1"), ([-1, 1, 0], "-x^2 + x"), ([0], "0"), ([1, -1], "x - 1"), ([2, 0, 0, 5], "2x^3 + 5")],
)
def test_a_polynomial_is_written_as_in_a_book(coefficients: list[int], text: str):
    assert derivative.polynomial_text(coefficients) == text


def test_quadratics_are_asked_as_expressions_and_cubics_at_a_point():
    for problem in problems_of(derivative.build):
        assert (problem.answer.kind == "numeric") == ("x^3" in problem.statement)


def test_no_sum_of_probabilities_shows_the_single_probability_that_another_problem_asks_for():
    """Regression: "at most 2" in training printed P(1), which the exam asked for as "exactly 1"."""
    relations = set()
    for problem in problems_of(binomial_probability.build):
        relation = next(r for r in ("exactly", "at most", "at least") if r in problem.statement)
        relations.add(relation)
        terms = re.findall(r"C\(([0-9]+),([0-9]+)\) =", problem.solution)
        inner = [3 <= int(k) <= int(n) - 3 for n, k in terms]
        assert len(inner) == 1 if relation == "exactly" else len(inner) in (2, 3)
        if relation == "exactly":
            assert inner == [True]
        else:
            assert all(int(k) <= 2 or int(k) >= int(n) - 2 for n, k in terms)
    assert relations == {"exactly", "at most", "at least"}


def test_both_kinds_of_question_on_effects_are_asked_and_every_letter_is_right_sometimes():
    problems = problems_of(factorial_effect.build)
    letters = [p.answer.text for p in problems if p.answer.kind == "choice"]
    assert set(letters) == {"A", "B", "C", "D"}
    assert 100 < len(letters) < 200
    assert {p.guess_rate for p in problems if p.answer.kind == "choice"} == {1 / 3, 1 / 4}


def test_the_chosen_effect_is_the_largest_in_the_solution():
    for problem in problems_of(factorial_effect.build, 100):
        if problem.answer.kind == "choice":
            steps = [line.rsplit(" = ", 1) for line in problem.solution.splitlines() if line.count(" = ") >= 2]
            sizes = [abs(float(size)) for _, size in steps]
            assert len(sizes) == len(problem.answer.choices)
            assert "ABCD"[sizes.index(max(sizes))] == problem.answer.text
