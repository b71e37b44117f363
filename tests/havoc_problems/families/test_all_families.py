"""What holds for every family on the shelf, a new one included."""

from __future__ import annotations

import ast
import math
import operator
import re
from functools import cache
from itertools import pairwise

import pytest

from havoc_problems.catalog import build_family, family_names
from havoc_problems.grading import grade
from havoc_problems.problem import Answer, Problem

SEEDS = 200

every_family = pytest.mark.parametrize("name", family_names())


@cache
def problems(name: str) -> tuple[Problem, ...]:
    """The first problems of a family, built once for all tests. Building one verifies it."""
    family = build_family(name)
    return tuple(family.build(seed) for seed in range(SEEDS))


def reply(problem: Problem) -> str:
    return problem.messages()[1]["content"]


@every_family
def test_two_hundred_seeds_verify(name: str):
    family = build_family(name)
    assert len(problems(name)) == SEEDS
    assert {(p.family, p.field) for p in problems(name)} == {(name, family.field)}
    assert [p.seed for p in problems(name)] == list(range(SEEDS))


@every_family
def test_the_same_seed_gives_the_same_problem(name: str):
    family = build_family(name)
    assert [family.build(seed) for seed in range(0, SEEDS, 10)] == list(problems(name)[::10])


@every_family
def test_seeds_give_different_statements_in_several_phrasings(name: str):
    statements = {p.statement for p in problems(name)}
    assert len(statements) > 0.9 * SEEDS
    assert len({re.sub(r"[0-9].*", "", s) for s in statements}) >= 3


@every_family
def test_the_statement_does_not_say_the_answer(name: str):
    for problem in problems(name):
        assert "Answer:" not in problem.statement
        assert not problem.statement.rstrip(" .?").endswith(f" {problem.answer.text}")
        assert "Answer:" not in problem.solution


@every_family
def test_the_grader_accepts_the_answer_alone_and_in_the_full_solution(name: str):
    for problem in problems(name):
        assert grade(problem.answer, f"Answer: {problem.answer.text}").reason == "right"
        assert grade(problem.answer, reply(problem)).reason == "right"


@every_family
def test_the_grader_rejects_an_answer_that_is_off(name: str):
    for problem in problems(name):
        answer = problem.answer
        if answer.value is not None:
            off = f"{answer.value * 1.1 + 1:.6f}"
        elif answer.kind == "choice":
            off = "B" if answer.text == "A" else "A"
        else:
            off = f"{answer.text} + 1"
        if answer.value == -10.0:
            continue  # -10 * 1.1 + 1 is -10
        assert not grade(answer, f"Answer: {off}").correct


@every_family
def test_the_text_of_a_number_is_its_value_as_rounded(name: str):
    for problem in problems(name):
        answer = problem.answer
        if answer.value is None:
            continue
        number = answer.text.split()[0]
        decimals = len(number.partition(".")[2])
        allowed = 0.0 if answer.tolerance == 0.0 else 0.5 * 10.0**-decimals
        assert abs(float(number) - answer.value) <= allowed + 1e-9  # 1e-9: float64 in values below 1,000
        assert not re.fullmatch(r"-0(\.0*)?", number)


@every_family
def test_every_step_shown_is_true(name: str):
    """A third computation of the truth: the arithmetic in the solution, read back from its text."""
    checked = 0
    for problem in problems(name):
        for line in problem.solution.splitlines():
            sides = [side for side in map(arithmetic, line.split(" = ")) if side is not None]
            for (left, _), (right, decimals) in pairwise(sides):
                checked += 1
                # Half a unit of the last decimal shown, and float64's own rounding.
                assert abs(left - right) <= 0.5 * 10.0**-decimals + 1e-9, f"{name} {problem.seed}: {line}"
    # A derivative of a quadratic is all letters; every other solution has at least one equation in numbers.
    assert checked >= 0.4 * SEEDS


@every_family
def test_the_guess_rate_covers_the_best_single_guess(name: str):
    """Checked anew on other seeds than it was measured on, so a wrong constant is seen."""
    family = build_family(name)
    built = [family.build(seed) for seed in range(10**6, 10**6 + 800)]
    numeric = [p for p in built if p.answer.value is not None]
    best = most_hits(p.answer for p in numeric)
    expected = sum(p.guess_rate for p in numeric)
    # The best of many guesses in a small sample lies above its expectation; five standard deviations.
    assert best <= expected + 5 * math.sqrt(expected) + 1
    assert all(0.0 < p.guess_rate <= 0.5 for p in built)


@every_family
def test_the_largest_options_still_verify(name: str):
    family = build_family(name)
    largest = {}
    for key, field in type(family.options).model_fields.items():
        largest[key] = next(limit.le for limit in field.metadata if hasattr(limit, "le"))
    hard = build_family(name, largest)
    for seed in range(20):
        problem = hard.build(seed)
        assert grade(problem.answer, reply(problem)).reason == "right"


@every_family
def test_the_smallest_options_still_verify(name: str):
    family = build_family(name)
    smallest = {}
    for key, field in type(family.options).model_fields.items():
        smallest[key] = next(limit.ge for limit in field.metadata if hasattr(limit, "ge"))
    easy = build_family(name, smallest)
    for seed in range(40):
        problem = easy.build(seed)
        assert grade(problem.answer, reply(problem)).reason == "right"


def most_hits(answers) -> int:
    """How many of the answers one number meets at most: the deepest overlap of what each accepts."""
    edges = []
    for answer in answers:
        allowed = 1e-9
        if answer.tolerance:
            decimals = len(answer.text.split()[0].partition(".")[2])
            allowed = answer.tolerance * abs(answer.value) + 0.5 * 10.0**-decimals
        edges += [(answer.value - allowed, 0), (answer.value + allowed, 1)]
    depth = deepest = 0
    for _, closes in sorted(edges):
        depth += -1 if closes else 1
        deepest = max(deepest, depth)
    return deepest


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def arithmetic(text: str) -> tuple[float, int] | None:
    """Value and decimals shown of a text that is arithmetic in numbers; None for anything with other words."""
    text = re.sub(r"^[^=]*: ", "", text)  # "time x speed: (21 + 37)/2 - ..."
    text = re.sub(r" (mm|m\^3|kN m\^2)$", "", text).strip()
    bare = text.replace("sqrt", "")
    if not bare or re.search(r"[^-+*/^(). 0-9]", bare):
        return None
    tree = ast.parse(text.replace("^", "**"), mode="eval")
    return value_of(tree.body), len(text.partition(".")[2]) if re.fullmatch(r"-?[0-9.]+", text) else 0


def value_of(node: ast.expr) -> float:
    if isinstance(node, ast.Constant):
        return float(node.value)
    if isinstance(node, ast.UnaryOp):
        return -value_of(node.operand)
    if isinstance(node, ast.Call):
        return math.sqrt(value_of(node.args[0]))
    assert isinstance(node, ast.BinOp)
    return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))


def test_the_reader_of_steps_sees_a_false_one():
    assert arithmetic("sqrt(9) + 2*(-3)") == (-3.0, 0)
    assert arithmetic("0.1250") == (0.125, 4)
    assert arithmetic("b - 3") is None


def test_an_answer_of_this_shelf_can_be_a_number_a_choice_or_an_expression():
    kinds = {p.answer.kind for name in family_names() for p in problems(name)}
    assert kinds == {"numeric", "choice", "symbolic"}
    assert isinstance(problems("derivative")[0].answer, Answer)
