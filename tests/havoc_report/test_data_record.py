from __future__ import annotations

import dataclasses

import pytest

from havoc_report.data_record import (
    EXCERPT_CHARACTERS,
    LENGTH_EDGES,
    NUM_LENGTHS,
    DataCard,
    FateCard,
    RuleCard,
    SourceCard,
    TokenRow,
    excerpt_of,
    length_column,
)


def source(*fates: FateCard, input_bytes: int = 100) -> SourceCard:
    return SourceCard("a", "domain", input_bytes, fates)


def test_a_ledger_closes_only_when_every_byte_has_one_fate() -> None:
    kept, lost = FateCard("kept", 90, 2, 80), FateCard("rejected", 10, 1, 9, "too_short")
    assert source(kept, lost).ledger_closes
    assert not source(kept).ledger_closes
    assert not source(kept, lost, lost).ledger_closes
    card = DataCard("t", "p", (source(kept, lost), source(kept)))
    assert not card.ledger_closes
    assert (card.input_bytes, card.bytes_of("kept"), card.bytes_of("rejected")) == (200, 180, 10)


def test_fates_with_different_reasons_add_up() -> None:
    found = source(FateCard("rejected", 10, 1, 9, "too_short"), FateCard("rejected", 30, 4, 20, "boilerplate"))
    assert (found.bytes_of("rejected"), found.documents_of("rejected"), found.text_bytes_of("rejected")) == (40, 5, 29)


def test_the_loss_is_what_the_rules_took_and_a_duplicate_is_none() -> None:
    found = source(FateCard("kept", 60, 1, 90), FateCard("duplicate", 30, 1, 9), FateCard("rejected", 10, 1, 1, "x"))
    assert (found.text_bytes_read, found.lost_share) == (100, 0.01)
    assert source().lost_share == 0.0


def test_a_fate_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="fate 'eaten' is none of kept, held_out, duplicate"):
        FateCard("eaten", 1)


def test_a_histogram_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=f"lengths of 'a': 3 columns, not {NUM_LENGTHS}"):
        SourceCard("a", "domain", 0, (), lengths=(1, 2, 3))


def test_lengths_are_counted_four_columns_a_decade() -> None:
    assert LENGTH_EDGES[:6] == (10, 18, 32, 56, 100, 178) and LENGTH_EDGES[-1] == 10_000_000
    assert [length_column(n) for n in (0, 9, 10, 17, 18, 99, 100)] == [0, 0, 1, 1, 2, 4, 5]
    assert length_column(10_000_000) == length_column(10**12) == NUM_LENGTHS - 1


def test_rates_of_a_rule_that_saw_nothing_are_zero() -> None:
    rule = RuleCard("r", "", "domain", "drop", 1, 4, 10, 100)
    assert (rule.reject_rate, rule.text_rate) == (0.25, 0.1)
    assert dataclasses.replace(rule, documents_fired=0, documents_seen=0).reject_rate == 0.0


def test_epochs_are_known_only_with_a_plan_and_with_text() -> None:
    assert TokenRow("a", "domain", 100, 400).epochs is None
    assert TokenRow("a", "domain", 0, 0, 100).epochs is None
    row = TokenRow("a", "domain", 100, 400, 1700)
    assert (row.epochs, row.bytes_per_token, row.verdict) == (17.0, 4.0, "strong warning")


def test_an_excerpt_is_the_text_or_its_beginning() -> None:
    assert excerpt_of("short") == "short"
    assert excerpt_of("x" * EXCERPT_CHARACTERS) == "x" * EXCERPT_CHARACTERS
    assert excerpt_of("x" * (EXCERPT_CHARACTERS + 1)) == "x" * EXCERPT_CHARACTERS + " …"
