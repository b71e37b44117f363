"""`havoc problems show`."""

from __future__ import annotations

from havoc_problems.catalog import exam_problems, family_names


def test_show_prints_statement_and_solution_of_every_family_in_turn(havoc):
    count = len(family_names())
    said = havoc("problems", "show", "--count", str(count))
    assert said.code == 0
    for name in family_names():
        assert f"--- {name} (" in said.out
    assert said.out.count("[user] ") == said.out.count("[assistant] ") == count


def test_show_can_keep_to_one_family_and_to_the_exam(havoc):
    name = family_names()[0]
    said = havoc("problems", "show", "--count", "2", "--family", name, "--exam")
    assert said.code == 0
    assert said.out.count(f"--- {name} (") == 2
    for problem in exam_problems(2, families=[name]):
        assert problem.statement in said.out


def test_a_family_that_is_none_is_answered_with_the_nearest(havoc):
    name = family_names()[0]
    said = havoc("problems", "show", "--family", name + "x")
    assert said.code == 2
    assert f"Did you mean '{name}'?" in said.message


def test_a_negative_count_is_one_message(havoc):
    """Regression: it ended in a traceback."""
    said = havoc("problems", "show", "--count", "-1")
    assert said.code == 2
    assert said.message == "ConfigError  --count: -1 is below 0. Name how many problems to show."
