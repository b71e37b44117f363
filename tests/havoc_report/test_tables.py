from __future__ import annotations

import math

import pytest

from havoc_report.tables import (
    Column,
    Table,
    cell_text,
    count,
    data_size,
    duration,
    fixed,
    percent,
    share_of,
    significant,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567.0, "1,230,000"),
        (1.2345, "1.23"),
        (0.00012345, "0.000123"),
        (-0.5, "−0.500"),
        (9.999, "10.0"),
        (1.5e-9, "1.50e−9"),
        (2e20, "2.00e20"),
    ],
)
def test_a_number_has_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 bytes"), (1023, "1,023 bytes"), (1536, "1.50 KiB"), (7 * 2**30, "7.00 GiB"), (2**60, "1,050,000 TiB")],
)
def test_bytes_have_the_largest_unit_that_leaves_one(value: float, text: str) -> None:
    assert data_size(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 s"), (0.421, "0.42 s"), (12.34, "12.3 s"), (59.99, "60.0 s"), (312, "5 min 12 s"), (11100, "3 h 05 min")],
)
def test_a_duration_reads_as_it_is_said(value: float, text: str) -> None:
    assert duration(value).replace("\u00a0", " ") == text


def test_counts_fractions_and_fixed_decimals() -> None:
    assert (count(-1234567), percent(0.3141), fixed(3)(1.5)) == ("−1,234,567", "31.4\u00a0%", "1.500")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "−∞"), ("as it is", "as it is"), (2, "2.00")],
)
def test_a_cell_without_a_number_says_so(value: float | str | None, text: str) -> None:
    assert cell_text(value) == text


def test_a_table_has_a_caption_and_names_its_columns_and_rows() -> None:
    table = Table("Scores.", (Column("Group"), Column("n", "right", count)), (("domain", 1234), ("a<b", None)), (1,))
    found = table.html()
    assert "<caption><span>Scores.</span></caption>" in found
    assert '<th scope="col" class="right">n</th>' in found
    assert '<tr><th scope="row" class="left">domain</th><td class="right">1,234</td></tr>' in found
    assert '<tr class="strong"><th scope="row" class="left">a&lt;b</th><td class="right">–</td></tr>' in found


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        Table("", (Column("a"), Column("b")), ((1, 2), (3,)))


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0.0 %"),
        (1, 10**6, "under 0.1 %"),
        (1, 3, "33.3 %"),
        (10**6 - 1, 10**6, "over 99.9 %"),
        (10, 10, "100.0 %"),
        (0, 0, "0.0 %"),
    ],
)
def test_a_share_of_something_never_reads_as_nothing_or_as_everything(part: int, whole: int, text: str) -> None:
    assert share_of(part, whole).replace("\u00a0", " ") == text
