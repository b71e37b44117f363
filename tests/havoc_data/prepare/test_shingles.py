from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.prepare.shingles import GRAM_BASE, WORD_BASE, mix, shingle_batch, shingles

TWO_TO_64 = 2**64
ASCII_WORD = re.compile(
    r"[A-Za-z]+|[0-9]+(?:\.[0-9]+)*|(?<![A-Za-z])'|'(?![A-Za-z])|[^\sA-Za-z0-9.,;:?\"`'\x00-\x1f\x7f]"
)


def mixed(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) % TWO_TO_64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % TWO_TO_64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % TWO_TO_64
    return state ^ state >> 31


def by_the_letter(text: str) -> list[int]:
    """The format of the docstring, for ASCII, in plain integers."""
    hashes = [
        mixed(sum(mixed(ord(c)) * pow(WORD_BASE, j, TWO_TO_64) for j, c in enumerate(word.lower())) % TWO_TO_64)
        for word in ASCII_WORD.findall(text)
    ]
    grams = [hashes[i : i + 5] for i in range(len(hashes) - 4)] or [hashes] * bool(hashes)
    return sorted({mixed(sum(w * pow(GRAM_BASE, k, TWO_TO_64) for k, w in enumerate(g)) % TWO_TO_64) for g in grams})


def same(first: str, second: str) -> bool:
    return np.array_equal(shingles(first), shingles(second))


def test_the_format_is_frozen() -> None:
    """These numbers may only change together with VERSION: signatures on disk were made from them."""
    assert shingles("12+7=19").tolist() == [0xF76DF70FA5872BAB]
    assert shingles("Ein Maß: größer als 10⁻³ m").tolist() == [
        0x26928A4CF047B3F0,
        0x5AC48D1D603DC6DE,
        0x72949F64DB4E7A84,
        0xE696DF7215E08838,
    ]


def test_splitmix64_gives_the_outputs_known_of_it() -> None:
    """The first two of the generator seeded with 1234567."""
    states = np.array([1234567, (1234567 + 0x9E3779B97F4A7C15) % TWO_TO_64], np.uint64)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973]
    assert states[0] == 1234567


@pytest.mark.parametrize(
    "text",
    [
        "a b c d e",
        "one two three four five six seven eight",
        "Don't: f'(x) = 3.14*x_1 - .5, 'quoted' 1.2.3 ends.",
        "x" * 100,
        "1. 2 .3 4.5. '",
    ],
)
def test_the_hashes_are_those_of_the_format(text: str) -> None:
    assert shingles(text).tolist() == by_the_letter(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=80))
def test_any_ascii_text_has_the_hashes_of_the_format(text: str) -> None:
    assert shingles(text).tolist() == by_the_letter(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=12))
def test_a_batch_gives_what_each_text_gives_alone(texts: list[str]) -> None:
    flat, offsets = shingle_batch(texts)
    assert flat.dtype == np.uint64 and offsets.dtype == np.int64 and offsets[0] == 0 and offsets[-1] == len(flat)
    alone = [shingles(text).tolist() for text in texts]
    assert [flat[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == alone
    assert all(found == sorted(set(found)) for found in alone)


def test_texts_longer_than_a_block_do_not_alter_their_neighbours() -> None:
    long = " ".join(f"w {number}" for number in range(40_000))
    texts = ["a b c d e f", long, "", "one word", long + " end", "12 + 7 = 19"]
    flat, offsets = shingle_batch(texts)
    assert [flat[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == [
        shingles(text).tolist() for text in texts
    ]
    # 80,000 words, each 5-gram once: none is lost or doubled where the text is cut into pieces.
    assert len(shingles(long)) == 79_996


def test_a_long_text_loses_no_word_where_it_is_cut_into_pieces() -> None:
    line = "the sample mean of n draws is 3.14 at most, f'(x) < 2 and so on\n"
    assert same(line * 20, line * 5000)


def test_a_line_without_blanks_longer_than_a_block_is_read_all_the_same() -> None:
    assert len(shingles("x" * 200_000)) == 1
    assert not same("x" * 200_000, "x" * 200_000 + "y")


def test_no_text_has_no_shingle_and_a_short_one_has_one() -> None:
    assert shingles("").tolist() == shingles(" \n\t.,;").tolist() == []
    assert [len(shingles(text)) for text in ("a", "a b", "a b c d", "a b c d e", "a b c d e f")] == [1, 1, 1, 1, 2]
    assert not same("a b c d", "a b c")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("12+7=19", "3-5=2"),
        ("12 + 7 = 19", "12 + 7 = 18"),
        ("f(x) = 2 x", "f'(x) = 2 x"),
        ("the value is 3.14 here", "the value is 314 here"),
        ("the value is 3.14 here", "the value is 3 14 here"),
        ("x_1 and x_2", "x 1 and x 2"),
        ("x^2 + y^2", "x2 + y2"),
        ("a < b", "a > b"),
        ("10⁻³ m", "10−3 m"),
        ("n! ways", "n ways"),
        ("𝑥 ≤ 𝑦", "𝑥 ≥ 𝑦"),
        ("数学は楽しい", "数学は難しい"),
        ("𠀀𠀁𠀂", "𠀀𠀁𠀃"),
        ("ab c", "a bc"),
    ],
)
def test_what_carries_meaning_makes_a_difference(first: str, second: str) -> None:
    assert not same(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("The Mean, of a sample.", "the mean of a SAMPLE"),
        ("“Well”, he said: yes;", '"Well" he said? Yes'),
        ("don't", "don’t"),
        ("a\u00a0b\tc\r\nd", "a b c d"),
        ("5 − 3 = 2", "5 - 3 = 2"),
        ("ÜBER Σ ς", "über σ σ"),
        ("1,000 and 2,000", "1 000 and 2 000"),
        ("one\ufefftwo", "one two"),
        ("\ud800 a b", "a b"),
    ],
)
def test_what_typesetting_decides_on_makes_none(first: str, second: str) -> None:
    assert same(first, second)


def test_a_script_without_spaces_has_a_word_a_character() -> None:
    assert len(shingles("统计学是一门关于数据的科学")) == 9
    assert len(shingles("สถิติศาสตร์")) == 7


def test_a_foreign_character_does_not_alter_the_rest_of_its_block() -> None:
    """Blocks in ASCII and others are read in different ways, and give the same."""
    plain = "One f'(x) = 3.14 text of ASCII, it's said."
    flat, offsets = shingle_batch([plain, "größer", plain])
    assert flat[: offsets[1]].tolist() == flat[offsets[2] :].tolist() == shingles(plain).tolist()
