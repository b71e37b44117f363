from __future__ import annotations

import dataclasses

from havoc_report.data_lines import card_lines
from havoc_report.data_record import DataCard, FateCard, SourceCard


def bars(lines: list[str]) -> list[str]:
    return [line.partition("[")[2].partition("]")[0] for line in lines if line.endswith(" used")]


def test_the_lines_fit_a_terminal_and_hold_no_control_character(full_card: DataCard) -> None:
    lines = card_lines(full_card)
    assert 25 <= len(lines) <= 50 and max(map(len, lines)) <= 100
    assert all(line.isprintable() for line in lines)
    assert not any(letter in "".join(lines) for letter in "\u00a0\u202e\ud800\x00")


def test_the_lines_say_what_the_page_says(full_card: DataCard) -> None:
    text = " ".join(" ".join(card_lines(full_card)).split())
    for said in (
        "DATA CARD: A corpus of engineering",
        "97.0 MiB in 16,223 files from 3 sources give 15,900 documents",
        "The ledger closes: each of 101,711,889 bytes has exactly one fate.",
        "engineering-forum-page.. 30.0 MiB",
        "pdf 12 10.0 MiB 177 2,100 of 5,200",
        "boilerplate general drop 4,800 33.1 % 13.3 %",
        "textbooks domain 17.2 million 3.17 2.09 fine",
        "!! problems would be read 42.6 times: refused.",
        "One file changed while it was read: </pre><script>alert(1)</script>⟨U+0000⟩",
    ):
        assert said in text


def test_a_bar_is_always_full_and_shows_even_the_smallest_fate() -> None:
    fates = (
        FateCard("kept", 10**9), FateCard("held_out", 1), FateCard("duplicate", 1), FateCard("rejected", 1),
    )  # fmt: skip
    (bar,) = bars(card_lines(DataCard("t", "p", (SourceCard("a", "domain", 10**9 + 3, fates),))))
    assert bar == "#" * 37 + "hdr"


def test_a_bar_is_cut_by_the_shares() -> None:
    fates = (FateCard("kept", 75), FateCard("unreadable", 25))
    (bar,) = bars(card_lines(DataCard("t", "p", (SourceCard("a", "domain", 100, fates),))))
    assert bar == "#" * 30 + "x" * 10


def test_an_empty_folder_and_an_empty_source_have_lines_too() -> None:
    assert "There is no source of text: nothing was found to read." in card_lines(DataCard("t", "p", ()))
    assert bars(card_lines(DataCard("t", "p", (SourceCard("a", "domain", 0, ()),)))) == [" " * 40]


def test_many_sources_are_summed_up_and_noise_is_called_noise(full_card: DataCard) -> None:
    many = tuple(dataclasses.replace(full_card.sources[0], name=f"source {number}") for number in range(20))
    lines = card_lines(dataclasses.replace(full_card, sources=many, dummy=True))
    assert "and 12 smaller sources" in lines
    assert lines[0].startswith("DATA CARD (DUMMY DATA: noise)")
