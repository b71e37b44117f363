"""Counts for the data card: they add up in any order of parts."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from havoc_data.document import Document, Rejected, Span
from havoc_data.prepare.facts import EXAMPLES, UNREADABLE, Facts, excerpt_of, format_name, merge

DOCUMENT = Document("a/b.tex.gz", "text", start=0, end=10, includes=(Span("a/c.tex", 0, 5),), counts=(("formulas", 2),))


def test_a_document_is_counted_with_all_its_bytes_and_files():
    facts = Facts()
    facts.see(DOCUMENT, "tex", size=15, text_bytes=4)
    facts.see(Document("a/b.tex.gz", "more", ordinal=1, start=10, end=12), "tex", size=2, text_bytes=4)
    assert facts.values()["formats"] == {
        "tex": {"bytes": 17, "documents": 2, "files": 2, "formulas": 2, "text_bytes": 8}
    }
    assert facts.values()["seen"] == {"bytes": 8, "documents": 2}


def test_documents_and_rejects_of_one_format_are_counted_together():
    facts = Facts()
    facts.see(Document("scipy.stats.norm", "text"), "package_docs", size=4, text_bytes=4)
    facts.reject(Rejected("scipy.odd", "why", 3), "package_docs")
    counts = facts.values()["formats"]["package_docs"]
    assert (counts["documents"], counts["rejected"], counts["bytes"]) == (1, 1, 7)


def test_the_format_is_in_the_name_behind_packing_and_archives():
    assert format_name("a/b.TXT") == "text"
    assert format_name("a.tar.gz!/x/y.csv.zst") == "table"
    assert format_name("book.tex!/c.pdf.xz") == "pdf"
    assert format_name("rows.jsonl.bz2") == "jsonl"
    assert format_name("scipy.stats") is None


def test_a_rule_keeps_three_examples_and_counts_all():
    facts = Facts()
    for number in range(5):
        facts.fire("too_short", f"{number}.txt", (float(number), 100.0), f"text\n {number}", 7)
    fired = facts.values()["rules"]["too_short"]
    assert (fired["documents"], fired["bytes"]) == (5, 35)
    assert fired["examples"] == [[f"{n}.txt", float(n), 100.0, f"text {n}"] for n in range(EXAMPLES)]


def test_many_rejects_are_counted_and_some_are_named():
    facts = Facts()
    for number in range(UNREADABLE + 10):
        facts.reject(Rejected(f"{number}.txt", "broken", 1), "text")
    values = facts.values()
    assert values["formats"]["text"]["rejected"] == UNREADABLE + 10
    assert len(values["rejects"]) == UNREADABLE
    assert values["rejects"][0] == ["0.txt", "unreadable", "broken"]


def test_an_excerpt_is_one_short_line():
    assert excerpt_of("a\n b\tc") == "a b c"
    assert excerpt_of("x" * 300) == "x" * 240 + "…"
    assert "\n" not in excerpt_of("word\n" * 500)
    assert len(excerpt_of("word\n" * 500)) == 241


SOME = st.lists(
    st.tuples(st.sampled_from(["a.txt", "b.csv", "c.pdf"]), st.integers(1, 9), st.sampled_from(["report", "fire"])),
    max_size=6,
)


def facts_of(deeds):
    facts = Facts()
    for origin, size, deed in deeds:
        facts.see(Document(origin, "x" * size, end=size), "text", size=size, text_bytes=size)
        facts.languages["en"] += size
        if deed == "fire":
            facts.fire("few_letters", origin, (0.5, 0.7), "x" * size, size)
    return facts.values()


@given(parts=st.lists(SOME, min_size=1, max_size=4))
def test_counts_of_parts_add_up_to_those_of_the_whole(parts):
    merged = merge(facts_of(part) for part in parts)
    whole = facts_of([deed for part in parts for deed in part])
    assert merged["seen"] == whole["seen"]
    assert merged["languages"] == whole["languages"]
    assert {name: (r["documents"], r["bytes"]) for name, r in merged["rules"].items()} == {
        name: (r["documents"], r["bytes"]) for name, r in whole["rules"].items()
    }
    for name, counts in whole["formats"].items():
        assert {key: n for key, n in merged["formats"][name].items() if key != "files"} == {
            key: n for key, n in counts.items() if key != "files"
        }
    assert all(len(rule["examples"]) <= EXAMPLES for rule in merged["rules"].values())


def test_merging_changes_none_of_the_parts():
    one, two = facts_of([("a.txt", 3, "fire")]), facts_of([("a.txt", 4, "fire")])
    before = json.dumps([one, two])
    merge([one, two])
    assert json.dumps([one, two]) == before
    assert merge([]) == {}
