"""What a text cannot hold is not looked for, and what it holds is never passed over."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.prepare import personal_data
from havoc_data.prepare.shapes import possible_kinds

PIECES = st.sampled_from(
    (
        *("+49 30 901820", "(415) 555-2671", "415.555.2671", "Tel. 030 901820", "DE89 3704 0044 0532 0130 00"),
        *("4111 1111 1111 1111", "378282246310005", "3782 822463 10005", "078-05-1120", "anna@uni-bonn.de", "8.8.8.8"),
        *("2606:4700::1111", "ghp_" + "a1" * 18, " ", "\n", "x = ", "é", "12", "-", ".", "A", ":", "Fax: ", "tél", "°"),
    )
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_nothing_is_found_of_a_kind_that_was_ruled_out(text):
    possible = possible_kinds(text)
    for kind, finder in personal_data._FINDERS:
        assert kind in possible or list(finder(text)) == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789 -.()+/:@AZaz\u0660é", max_size=60))
def test_nor_in_rows_of_digits_and_separators(text):
    possible = possible_kinds(text)
    for kind, finder in personal_data._FINDERS:
        assert kind in possible or list(finder(text)) == []


@pytest.mark.parametrize("text", ["", "The mean of 12 numbers is 3.5.", "x_1 + x_2 = 12, 1234 5678", "σ² = 0.25"])
def test_a_text_without_their_shapes_is_not_searched(text):
    assert possible_kinds(text) <= {"api_key", "ipv4"}
