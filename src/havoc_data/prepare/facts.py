"""What is counted while documents are looked at, for the data card.

Plain dictionaries of numbers, so that the counts of parts, made in different processes, add up in any order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from havoc_data.document import Document, Rejected
from havoc_data.reader import format_of

EXAMPLES = 3
"""Examples of a rule in the card."""
UNREADABLE = 50
"""Rejects of a source that are named in the card."""
EXCERPT_CHARACTERS = 240


class Facts:
    """Counters of one part."""

    def __init__(self) -> None:
        self.formats: dict[str, Counter[str]] = defaultdict(Counter)
        self.input_bytes = 0
        self.languages: Counter[str] = Counter()
        self.personal_data: Counter[str] = Counter()
        self.personal_documents = 0
        self.seen: Counter[str] = Counter()
        self.rules: dict[str, dict[str, Any]] = {}
        self.rejects: list[list[str]] = []
        self.contamination: list[list[Any]] = []
        self._origins: dict[str, set[str]] = defaultdict(set)

    def see(self, document: Document, form: str, *, size: int, text_bytes: int) -> None:
        """Count a document that a reader gave.

        Args:
            document: as it was given.
            form: its format.
            size: bytes of the files that it was made from.
            text_bytes: bytes of its text.
        """
        counts = self.formats[form]
        counts["documents"] += 1
        counts["bytes"] += size
        counts["text_bytes"] += text_bytes
        counts.update(dict(document.counts))
        self._origins[form].update(span.origin for span in document.spans)
        self.seen.update(documents=1, bytes=text_bytes)

    def fire(self, rule: str, origin: str, measured: tuple[float, float], text: str, text_bytes: int) -> None:
        """Count a rule that fired on a document. measured: (value, limit)."""
        fired = self.rules.setdefault(rule, {"documents": 0, "bytes": 0, "examples": []})
        fired["documents"] += 1
        fired["bytes"] += text_bytes
        if len(fired["examples"]) < EXAMPLES:
            fired["examples"].append([origin, *measured, excerpt_of(text)])

    def reject(self, item: Rejected, form: str) -> None:
        """Count something that did not become a document."""
        counts = self.formats[form]
        counts["rejected"] += 1
        counts["bytes"] += item.bytes
        if len(self.rejects) < UNREADABLE:
            self.rejects.append([item.origin, item.rule, item.reason])

    def values(self) -> dict[str, Any]:
        """As plain values."""
        for form, origins in self._origins.items():
            self.formats[form]["files"] = len(origins)
        return {
            "formats": {form: dict(sorted(counts.items())) for form, counts in sorted(self.formats.items())},
            "input_bytes": self.input_bytes,
            "languages": dict(sorted(self.languages.items())),
            "personal_data": dict(sorted(self.personal_data.items())),
            "personal_documents": self.personal_documents,
            "seen": dict(sorted(self.seen.items())),
            "rules": dict(sorted(self.rules.items())),
            "rejects": self.rejects,
            "unread": [],
            "endings": {},
            "contamination": self.contamination,
        }


def merge(facts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The facts of several parts as those of one; lists keep their order and, but for `contamination`, a bounded length."""
    merged: dict[str, Any] = {}
    for values in facts:
        _add(merged, values)
    return merged


def _add(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _add(into.setdefault(name, {}), value)
        elif isinstance(value, list):
            limit = {"examples": EXAMPLES, "rejects": UNREADABLE, "unread": UNREADABLE}.get(name)
            into[name] = [*into.get(name, []), *value][:limit]
        else:
            into[name] = into.get(name, 0) + value


def format_name(origin: str) -> str | None:
    """The format of a file by its name, packing taken off."""
    name = origin.rpartition("!/")[2].lower()
    for packing in (".gz", ".zst", ".bz2", ".xz"):
        name = name.removesuffix(packing)
    return format_of(name)


def excerpt_of(text: str) -> str:
    """The beginning of a text, on one line."""
    begin, rest = text[: 4 * EXCERPT_CHARACTERS], text[4 * EXCERPT_CHARACTERS :]
    flat = " ".join(begin.split())
    return flat[:EXCERPT_CHARACTERS] + ("…" if len(flat) > EXCERPT_CHARACTERS or rest.strip() else "")
