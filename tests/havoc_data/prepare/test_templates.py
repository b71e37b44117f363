from __future__ import annotations

import numpy as np
import pytest

from havoc_data.prepare.templates import families, template_key


def test_texts_that_differ_in_numbers_and_white_space_only_have_one_key() -> None:
    first = "A beam of 3.5 m carries 1,200 N.\nFind x if x = -3."
    second = "A beam of 12 m  carries 80 N. Find x\n if x = 6.02e-23."
    assert template_key(first) == template_key(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("x = 5-3", "x = 5+3"),
        ("x = a-1", "x = a+1"),
        ("f(2)-1", "f(2)*1"),
        ("A beam of 3 m", "A rod of 3 m"),
        ("1 2", "12"),
        ("f(1,2)", "f(12)"),
        ("see 3.", "see 3"),
    ],
)
def test_what_is_no_number_makes_another_template(first: str, second: str) -> None:
    assert template_key(first) != template_key(second)


@pytest.mark.parametrize("number", ["7", "-7", "+7", "−7", "0.25", ".25", "1,234,567.8", "1e9", "2.5E−3", "007"])
def test_a_number_in_any_form_is_one_number(number: str) -> None:
    assert template_key(f"x = {number} m") == template_key("x = 0 m")


def test_the_key_is_frozen() -> None:
    """BLAKE2b with 8 bytes of "x = 0", read from the little end."""
    assert template_key("x = 12") == 0xDB883AB83B81BAB3


def test_lone_surrogates_do_not_stop_it() -> None:
    assert template_key("\ud800 1") == template_key("\ud800 2")


def test_families_are_counted_from_three_documents_on_the_largest_first() -> None:
    keys = np.array([9, 5, 5, 2, 9, 2, 9, 5, 2, 9, 7, 7], np.uint64)
    assert families(keys) == [(9, 4, 0), (2, 3, 3), (5, 3, 1)]
    assert families(keys, at_least=2) == [(9, 4, 0), (2, 3, 3), (5, 3, 1), (7, 2, 10)]
    assert families(keys, at_least=5) == families(np.empty(0, np.uint64)) == []


def test_six_hundred_files_that_differ_in_numbers_only_are_one_family() -> None:
    texts = [f"Exercise {i}: what is {i * 7} + {i - 3}?" for i in range(600)]
    keys = np.array([template_key(text) for text in [*texts, "What is a prime?"]], np.uint64)
    assert [(count, first) for _, count, first in families(keys)] == [(600, 0)]


def test_a_key_uses_all_64_bits() -> None:
    keys = [template_key(chr(97 + i)) for i in range(26)]
    assert max(keys) >= 2**63 and all(isinstance(key, int) for key in keys)
    assert families(np.array(keys * 3, np.uint64), at_least=3)[0][1] == 3
