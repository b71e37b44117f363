from __future__ import annotations

import dataclasses
import json

import pytest

from havoc_core.errors import DataError
from havoc_report.data_record import DataCard, FateCard, SourceCard
from havoc_report.data_record_json import from_json, to_json


def test_a_card_comes_back_as_it_was(full_card: DataCard) -> None:
    written = to_json(full_card)
    assert from_json(written, where="card.json") == full_card
    assert to_json(from_json(written, where="card.json")) == written
    written.encode("ascii")  # also what UTF-8 has no bytes for


def test_an_empty_card_comes_back_with_what_was_not_looked_at() -> None:
    found = from_json(to_json(DataCard("t", "p", ())), where="card.json")
    assert found.duplicates is None and found.tokens is None and found.templates is None


def test_the_order_in_which_counts_were_made_does_not_show() -> None:
    one = SourceCard("a", "domain", 0, (), licences={"MIT": 1, "GPL-3.0": 2})
    other = dataclasses.replace(one, licences={"GPL-3.0": 2, "MIT": 1})
    assert to_json(DataCard("t", "p", (one,))) == to_json(DataCard("t", "p", (other,)))


def broken(change: str) -> str:
    content = json.loads(to_json(DataCard("t", "p", (SourceCard("a", "domain", 1, (FateCard("kept", 1),)),))))
    source = content["card"]["sources"][0]
    if change == "version":
        content["data_card"] = 99
    elif change == "type":
        source["fates"][0]["bytes"] = "many"
    elif change == "bool":
        source["input_bytes"] = True
    elif change == "field":
        del source["licences"]
    elif change == "fate":
        source["fates"][0]["fate"] = "eaten"
    elif change == "count":
        source["licences"] = {"MIT": 1.5}
    elif change == "list":
        return "[]"
    else:
        return change
    return json.dumps(content)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("version", "version 99, not 1"),
        ("list", "version None, not 1"),
        ("type", r"card\.sources\[0\]\.fates\[0\]\.bytes is 'many'"),
        ("bool", r"card\.sources\[0\]\.input_bytes is True"),
        ("field", r"card\.sources\[0\] has .* not the fields of a SourceCard"),
        ("fate", "fate 'eaten' is none of"),
        ("count", r"licences\['MIT'\] is 1\.5"),
        ("{", "Expecting property name"),
    ],
)
def test_what_is_no_card_is_named_with_what_to_do(change: str, found: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"(?s)^a/card\.json: this is no data card that this version can read: .*{found}.*\. Make it again: havoc data card PATH\.",
    ):
        from_json(broken(change), where="a/card.json")
