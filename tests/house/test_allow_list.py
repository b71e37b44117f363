"""Rule: an exception is a line with reason and date in one allow-list. The rules themselves find stale lines."""

from __future__ import annotations

import datetime
import tomllib

RULES = {"file length", "function length", "parameters", "work at import"}


def test_every_exception_has_a_known_rule_a_place_a_date_and_a_reason(root):
    entries = tomllib.loads((root / "tests/house/allow_list.toml").read_text(encoding="utf-8"))["allowed"]
    for entry in entries:
        assert set(entry) == {"rule", "where", "date", "reason"}, entry
        assert entry["rule"] in RULES, entry
        assert isinstance(entry["date"], datetime.date), entry
        assert len(entry["reason"].split()) >= 4, entry


def test_no_exception_is_listed_twice(root):
    entries = tomllib.loads((root / "tests/house/allow_list.toml").read_text(encoding="utf-8"))["allowed"]
    places = [(entry["rule"], entry["where"]) for entry in entries]
    assert len(places) == len(set(places))
