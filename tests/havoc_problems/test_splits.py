from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_problems.splits import exam_seed, reserved_for_exam, split_of, training_seed


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_no_training_seed_is_an_exam_seed(one: int, other: int):
    assert training_seed(one) != exam_seed(other)
    assert split_of(training_seed(one)) == "training"
    assert split_of(exam_seed(other)) == "exam"


def test_different_indices_give_different_seeds():
    assert len({training_seed(i) for i in range(1000)} | {exam_seed(i) for i in range(1000)}) == 2000


@pytest.mark.parametrize("seed_of", [training_seed, exam_seed])
def test_a_negative_index_is_refused(seed_of):
    with pytest.raises(ValueError, match="0 or more, found -1"):
        seed_of(-1)


def test_the_reserve_is_pinned():
    # Literals: if these move, problems that a released model trained on move into its exam.
    assert [n for n in range(60) if reserved_for_exam(f"What is {n} + 1?")] == [13, 26]


def test_about_one_statement_in_sixteen_is_reserved():
    share = sum(reserved_for_exam(f"{i} and {j}") for i in range(100) for j in range(i, 100)) / 5050
    assert abs(share - 1 / 16) < 0.0136  # four standard deviations of a binomial share of 5,050


@given(st.lists(st.integers(-999, 999), min_size=1, max_size=6), st.randoms())
def test_other_words_another_order_and_other_signs_stay_on_the_same_side(numbers: list[int], random):
    shuffled = list(numbers)
    random.shuffle(shuffled)
    first = f"The sample is {', '.join(map(str, numbers))}. Find the mean."
    second = f"What is the median of {' and '.join(str(-n) for n in shuffled)}?"
    assert reserved_for_exam(first) == reserved_for_exam(second)


@given(st.integers(0, 99), st.integers(0, 99))
def test_trailing_and_leading_zeros_do_not_change_the_side(whole: int, decimals: int):
    assert reserved_for_exam(f"p = {whole}.{decimals}") == reserved_for_exam(f"p = 0{whole}.{decimals}00")
    assert reserved_for_exam(f"p = {whole}") == reserved_for_exam(f"p = {whole}.0")


def test_a_statement_without_numbers_is_decided_by_its_words_alone():
    sides = {
        reserved_for_exam(f"Differentiate the function called {chr(97 + i)}{chr(97 + j)}")
        for i in range(26)
        for j in range(9)
    }
    assert sides == {True, False}
    assert reserved_for_exam("Is  it EVEN?") == reserved_for_exam("is it even?")


@given(st.text())
def test_any_text_has_a_side(text: str):
    assert reserved_for_exam(text) in (True, False)
