from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.sections import (
    SECTION_BYTES,
    WHOLE_BYTES,
    cut_bytes_into_sections,
    cut_into_sections,
    sections_of,
)

LINE = "All happy families are alike; each unhappy family is unhappy in its own way.\n"


def test_a_text_of_256_kib_stays_whole_and_one_byte_more_is_cut() -> None:
    assert cut_into_sections("a" * 262_144) == [(0, 262_144)]
    assert len(cut_into_sections("a" * 262_145)) == 5


def test_the_limit_counts_bytes_and_not_characters() -> None:
    assert len(cut_into_sections("ü" * 131_072)) == 1
    assert len(cut_into_sections("ü" * 131_073)) == 5


def test_an_empty_text_has_no_sections() -> None:
    assert cut_into_sections("") == []
    assert cut_bytes_into_sections(b"") == []


@pytest.mark.parametrize(
    "heading",
    [
        "# Chapter",
        "### Part",
        "\\section{One}",
        "\\chapter*{One}",
        "  \\subsubsection[a]{One}",
        "Title\n=====",
        "Title\n---",
    ],
)
def test_a_long_text_is_cut_before_its_headings(heading: str) -> None:
    chapter = f"{heading}\n\n" + (LINE * 5 + "\n") * 100  # 39 KB with a hundred paragraphs
    text = chapter * 10
    pieces = [text[start:end] for start, end in cut_into_sections(text)]
    assert len(pieces) == 10
    assert all(piece.startswith(heading) for piece in pieces)


def test_without_headings_the_cut_is_after_a_blank_line() -> None:
    text = (LINE * 7 + "\n") * 600
    pieces = [text[start:end] for start, end in cut_into_sections(text)]
    assert len(pieces) > 4
    assert all(piece.endswith("\n\n") for piece in pieces)


def test_without_blank_lines_the_cut_is_after_a_line() -> None:
    text = LINE * 5000
    assert all(text[start:end].endswith("own way.\n") for start, end in cut_into_sections(text))


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_no_line_end_of_another_system_is_cut_in_two(line_end: str) -> None:
    text = ("x" * 61 + line_end) * 6000
    assert all(text[start:end].endswith(line_end) for start, end in cut_into_sections(text))


def test_a_line_end_at_the_very_limit_is_not_cut_in_two() -> None:
    text = "x" * (SECTION_BYTES - 1) + "\r\n" + "x" * 300_000
    assert cut_into_sections(text)[0] == (0, SECTION_BYTES - 1)


def test_a_single_line_is_cut_at_spaces() -> None:
    text = "word " * 80_000
    assert all(text[start:end].endswith("word ") for start, end in cut_into_sections(text))


def test_characters_of_many_bytes_are_never_cut_in_two() -> None:
    text = "x" + "𝔘" * 100_000
    ranges = cut_into_sections(text)
    assert "".join(text[start:end] for start, end in ranges) == text
    data = text.encode()
    assert [len(data[a:b].decode()) for a, b in cut_bytes_into_sections(data)] == [b - a for a, b in ranges]


def test_a_heading_near_the_last_cut_makes_no_tiny_section() -> None:
    text = "# One\n\n# Two\n\n" + "x" * 400_000
    assert min(end - start for start, end in cut_into_sections(text)) >= SECTION_BYTES // 4


def test_a_rule_below_a_blank_line_is_no_heading() -> None:
    text = ("Title\n=====\n" + LINE * 300 + "\n----\n" + LINE * 250) * 10
    assert all(text[start:].startswith("Title") for start, _ in cut_into_sections(text))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["# h\n", "T\n===\n", "\n\n", "\r\n", "\r", " ", "\t", "word", "é", "𝔘", "\0", "\ud800", "x" * 9000]
        ),
        min_size=1,
    ),
    st.integers(0, 10**6),
)
def test_nothing_is_lost_and_no_section_is_longer_than_64_kib(pieces: list[str], seed: int) -> None:
    text = "".join(random.Random(seed).choices(pieces, k=3000))
    ranges = cut_into_sections(text)
    assert "".join(text[start:end] for start, end in ranges) == text
    lengths = [len(text[start:end].encode("utf-8", "surrogatepass")) for start, end in ranges]
    if sum(lengths) > WHOLE_BYTES:
        assert max(lengths) <= SECTION_BYTES
        assert min(lengths) > 0


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(1, 200_000))
def test_invalid_bytes_are_cut_without_loss_and_blocks_alter_nothing(piece: bytes, block: int) -> None:
    data = piece * (300_000 // len(piece) + 1)
    whole = [data[start:end] for start, end in cut_bytes_into_sections(data)]
    assert b"".join(whole) == data
    assert max(map(len, whole)) <= SECTION_BYTES
    assert list(sections_of(data[i : i + block] for i in range(0, len(data), block))) == whole


@pytest.mark.parametrize("unit", [b"x", b"word ", b"\n", b"=\n", b"\n ", b"a\n---\n", b"\x80", b"# ", b"\r"])
def test_a_text_of_10_mb_is_cut_in_linear_time_whatever_it_is_made_of(unit: bytes) -> None:
    data = unit * (10_000_000 // len(unit))
    start = time.process_time()
    assert sum(map(len, sections_of([data]))) == len(data)
    # 0.02 to 1.5 s here; anything that grows with the square of the length takes hours.
    assert time.process_time() - start < 15


def test_a_stream_of_100_mb_needs_no_more_memory_than_a_few_blocks() -> None:
    block = b"x" * 1_000_000
    tracemalloc.start()
    try:
        assert sum(len(section) for section in sections_of(block for _ in range(100))) == 100_000_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
