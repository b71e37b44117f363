"""A statement is found where it occurs, and nowhere else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from havoc_eval.contamination import statements_in


def test_a_statement_is_found_inside_other_text_whatever_the_white_space() -> None:
    assert statements_in(["What is  the mean?"], ["x", "Q:What is\n\tthe mean?A: 5"]) == ["What is  the mean?"]


def test_a_statement_with_another_number_is_not_found() -> None:
    assert statements_in(["The mean of 3 and 4."], ["The mean of 3 and 5. The mean of 4 and 3."]) == []


def test_a_statement_is_not_put_together_from_two_texts() -> None:
    assert statements_in(["one two three"], ["one two", "three"]) == []


def test_each_statement_is_named_once_and_in_order() -> None:
    assert statements_in(["b c d", "a", "zz", "a"], ["a b c d", "a"]) == ["b c d", "a"]


def test_an_empty_statement_is_in_nothing() -> None:
    assert statements_in(["", "  "], ["text", ""]) == []


@given(
    st.lists(st.text("ab \n", max_size=8), max_size=6),
    st.lists(st.text("ab \n\u00a0", max_size=30), max_size=4),
)
def test_it_agrees_with_a_plain_search(statements: list[str], texts: list[str]) -> None:
    folded = [" ".join(text.split()) for text in texts]
    wanted = [s for s in dict.fromkeys(statements) if s.split() and any(" ".join(s.split()) in text for text in folded)]
    assert statements_in(statements, texts) == wanted
