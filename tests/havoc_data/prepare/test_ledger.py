"""The account of every byte: gaps, overlaps and sums."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.prepare.build import collecting
from havoc_data.prepare.collect import collect
from havoc_data.prepare.ledger import SourceLedger, Sums, does_not_close, sum_lines, unaccounted

CUTS = st.lists(st.integers(1, 500), min_size=1, max_size=12, unique=True).map(sorted)


def ranges(cuts):
    """Neighbouring ranges between 0 and the last cut."""
    return list(zip([0, *cuts[:-1]], cuts, strict=True))


@given(cuts=CUTS, start=st.integers(0, 1000), order=st.randoms(use_true_random=False))
def test_ranges_that_lie_side_by_side_cover_a_file_in_any_order(cuts, start, order):
    spans = [(start + first, start + last) for first, last in ranges(cuts)] + [(start + cuts[0], start + cuts[0])]
    order.shuffle(spans)
    assert unaccounted({"a": (start, start + cuts[-1])}, {"a": spans}) is None


@given(cuts=CUTS, data=st.data())
def test_a_range_that_is_missing_is_found(cuts, data):
    spans = ranges(cuts)
    first, last = spans.pop(data.draw(st.integers(0, len(spans) - 1)))
    assert unaccounted({"a": (0, cuts[-1])}, {"a": spans}) == f"a: bytes {first} to {last} are not accounted for"


@given(cuts=CUTS, data=st.data())
def test_a_range_that_comes_twice_is_found(cuts, data):
    spans = ranges(cuts)
    again = data.draw(st.sampled_from(spans))
    found = unaccounted({"a": (0, cuts[-1])}, {"a": [*spans, again]})
    assert found == f"a: bytes {again[0]} to {again[1]} are accounted for twice"


@given(cuts=CUTS, data=st.data(), change=st.integers(-30, 30).filter(bool))
def test_a_range_that_begins_or_ends_elsewhere_is_found(cuts, data, change):
    spans = ranges(cuts)
    number = data.draw(st.integers(0, len(spans) - 1))
    first, last = spans[number]
    moved = data.draw(st.sampled_from([(first + change, last), (first, last + change)]))
    spans[number] = moved
    # A range that became empty, or a file that became empty, may not be hidden by the rest.
    assert unaccounted({"a": (0, cuts[-1])}, {"a": spans}) is not None


def test_each_kind_of_fault_has_its_words():
    sizes = {"a": (10, 20)}
    assert unaccounted(sizes, {"a": [(10, 15), (15, 20)]}) is None
    assert unaccounted(sizes, {"a": [(11, 20)]}) == "a: bytes 10 to 11 are not accounted for"
    assert unaccounted(sizes, {"a": [(10, 19)]}) == "a: bytes 19 to 20 are not accounted for"
    assert unaccounted(sizes, {"a": [(10, 22)]}) == "a: bytes 20 to 22 are accounted for and not there"
    assert unaccounted(sizes, {"a": [(8, 20)]}) == "a: bytes 8 to 10 are accounted for twice"
    assert unaccounted(sizes, {"a": [(10, 16), (14, 20)]}) == "a: bytes 14 to 16 are accounted for twice"
    assert unaccounted(sizes, {}) == "a: bytes 10 to 20 are not accounted for"
    assert unaccounted({}, {"b": [(0, 1)]}) == "b: a document names it, and it is no file of this part"
    assert unaccounted({"empty": (0, 0)}, {}) is None


def test_an_account_that_does_not_close_says_whose_fault_it_is():
    error = does_not_close("math: a.txt: bytes 1 to 2 are not accounted for")
    assert (error.where, error.found) == ("ledger", "math: a.txt: bytes 1 to 2 are not accounted for.")
    assert error.remedy == (
        "A reader left bytes out, which is a fault of it: please report the file, or leave it out with data.exclude."
    )


FAULTS = {
    "drops": r"lab: 0.txt: bytes \d+ to \d+ are not accounted for",
    "doubles": r"lab: 0.txt: bytes \d+ to \d+ are accounted for twice",
    "names another file": r"lab: elsewhere.txt: a document names it, and it is no file of this part",
    "goes too far": r"lab: 0.txt: bytes \d+ to \d+ are accounted for and not there",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reader_that_does_not_account_for_every_byte_fails_the_build(fault, lab_config, tmp_path):
    with pytest.raises(DataError, match=FAULTS[fault]) as caught:
        collect(collecting(lab_config(fault=fault)))
    assert caught.value.where == "ledger"
    assert "please report the file, or leave it out with data.exclude" in caught.value.remedy
    assert not (tmp_path / "run" / "corpus" / "manifest.json").exists()
    assert list((tmp_path / "run" / "corpus" / "parts").iterdir()) == [], "nothing half-written is left"


def test_a_text_may_be_longer_than_the_bytes_it_was_made_from(lab_config):
    """A reader that spells formulas out makes more text than there were bytes; the account is about the bytes."""
    ledger = collect(collecting(lab_config(fault="invents"))).ledgers[0]
    assert sum(ledger.sums.text_bytes.values()) == sum(ledger.sums.input_bytes.values()) + 4 * 150


LINES = st.lists(
    st.fixed_dictionaries(
        {"fate": st.sampled_from(["kept", "held_out", "duplicate", "too_short"]), "bytes": st.integers(0, 10**12)},
        optional={"text": st.integers(0, 10**12)},
    )
)


@given(one=LINES, two=LINES)
def test_sums_of_parts_are_the_sums_of_the_whole_in_any_order(one, two):
    whole = sum_lines([*one, *two])
    # A Counter drops what is zero; documents are never zero, and bytes that are zero add nothing.
    for a, b in ((one, two), (two, one)):
        parts = sum_lines(a).plus(sum_lines(b))
        assert parts.documents == whole.documents
        for name in ("input_bytes", "text_bytes"):
            assert {k: v for k, v in getattr(whole, name).items() if v} == getattr(parts, name)
    assert sum(whole.documents.values()) == len(one) + len(two)
    assert sum(whole.input_bytes.values()) == sum(line["bytes"] for line in [*one, *two])


def test_the_ledger_of_a_source_knows_kept_duplicates_and_rejects():
    sums = Sums(
        {"kept": 5, "held_out": 2, "duplicate": 3, "near_duplicate": 1, "too_short": 4, "unreadable": 1},
        {"kept": 50, "held_out": 20},
        {"kept": 40, "held_out": 10, "duplicate": 99},
    )
    ledger = SourceLedger("math", "domain", sums, {"MIT": 5}, ("a.txt: it is empty",))
    assert (ledger.kept, ledger.kept_bytes, ledger.duplicates, ledger.rejected) == (7, 50, 4, 5)
    assert SourceLedger.of(ledger.values()) == ledger
