"""The same question is the same words however it is set; another number is another word."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from havoc_data.prepare.exam_words import NUMBER, eight_grams, five_grams, words_of


def shown(text: str) -> list[str]:
    words = words_of(text)
    return [text[start:end] for start, end in zip(words.starts, words.ends, strict=True)]


def same(one: str, other: str) -> bool:
    return words_of(one).hashes.tolist() == words_of(other).hashes.tolist()


def test_words_numbers_and_operators_lie_where_they_stand() -> None:
    text = "Ann’s 80,000.50 kg: f(x) = -8x^2 – 3, 95%!"
    assert shown(text) == ["Ann", "s", "80,000.50", "kg", "f", "x", "=", "-", "8", "x", "2", "–", "3", "95", "%"]
    assert (words_of("a 5 b").kinds == NUMBER).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The MEAN of Ärger", "the mean\n\tof   ärger"),
        ("80,000 and 1,234,567.5", "80000 and 1234567.5"),
        ("x^2 + 10^3", "x² + 10³"),
        ("x_1 − 5", "x_{1} - 5"),
        ("$5 \\times 3 \\quad \\text{kg}$", "5 * 3 kg"),
        ("5 × 3 · 2", "5*3*2"),
        ("**Ann** has `3` _eggs_", "Ann has 3 eggs"),
        ("- Ann has 3\n- Ben has 4", "Ann has 3 Ben has 4"),
        ("> quoted\n> text 5", "quoted text 5"),
        ("Title\n=====\na -- b", "Title a b"),
        ("the x-axis, a 3-year-old", "the x axis, a 3 year old"),
        ("x-y", "x - y"),
        ("5\n- 3\n- x", "5 - 3 - x"),
        ("\\left( \\sin 𝑥 \\right)", "sin x"),
        ("costs \\$5, 95\\%", "costs $5, 95%"),
    ],
)
def test_setting_makes_no_difference(one: str, other: str) -> None:
    assert same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("3 eggs", "4 eggs"), ("x + 3", "x - 3"), ("2.5", "25"), ("1,2", "12"), ("1,2345", "12345"), ("a b", "b a"),
     ("ab", "ba"), ("\\alpha", "\\beta"), ("x < 3", "x > 3"), ("10 2", "102")],
)  # fmt: skip
def test_what_is_different_stays_different(one: str, other: str) -> None:
    assert not same(one, other)


@pytest.mark.parametrize("text", ["", " ", "...", ",,,", "\ud800", "\n\n"])
def test_a_text_without_words_has_none(text: str) -> None:
    assert len(words_of(text)) == 0


@pytest.mark.parametrize("text", ["1,", ",123", "1,234", "1,23", "a,123", "1.", ".5", "-", "\\", "\\quad", "- ", "+a"])
def test_edges_are_no_trouble(text: str) -> None:
    words = words_of(text)
    assert (words.starts < words.ends).all() and (words.ends <= len(text)).all()


def test_the_words_of_a_long_text_are_those_of_its_sentences() -> None:
    """Long texts are worked on in slices; where one ends must not show."""
    draw = random.Random(1)
    sentences = [f"Item {n}: the cost of {draw.randrange(10**6):,} tins, x_{n} + 2.5·y² ≤ 7." for n in range(3000)]
    whole = words_of("\n".join(sentences))
    assert len("\n".join(sentences)) > 3 * (1 << 15)
    assert whole.hashes.tolist() == [h for sentence in sentences for h in words_of(sentence).hashes.tolist()]
    assert (np.diff(whole.starts) > 0).all()


def test_a_text_without_a_blank_is_cut_somewhere() -> None:
    assert words_of("x" * 100_000).ends[-1] == 100_000


def test_a_character_outside_ascii_changes_no_other_word() -> None:
    assert words_of("The sum of 12 and x² é").hashes[:5].tolist() == words_of("The sum of 12 and").hashes.tolist()


def test_grams_tell_order_and_place() -> None:
    words = words_of("a b c d e f g h i j").hashes
    assert len(eight_grams(words)) == 3 and len(five_grams(words)) == 6
    assert eight_grams(words)[2] == eight_grams(words[2:])[0]
    assert five_grams(words)[3] == five_grams(words[3:8])[0]
    assert eight_grams(words[:8])[0] != eight_grams(words[[1, 0, 2, 3, 4, 5, 6, 7]])[0]
    assert len({*eight_grams(words).tolist(), *five_grams(words).tolist()}) == 9
    assert len(eight_grams(words[:7])) == len(five_grams(words[:4])) == 0


def test_hashes_do_not_depend_on_the_process() -> None:
    code = "from havoc_data.prepare.exam_words import words_of; print(words_of('mean 5 µ').hashes.tolist())"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"}, capture_output=True
    )
    assert run.stdout.decode().strip() == str(words_of("mean 5 µ").hashes.tolist())
