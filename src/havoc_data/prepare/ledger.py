"""The account of every byte: whether ranges cover a file, and what became of each.

Every byte of a file that was read belongs to one line of the ledger, and every line has one fate: kept, held out,
duplicate, near-duplicate, the rule that rejected it, or unreadable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from havoc_core.errors import DataError

FATES = ("kept", "held_out", "duplicate", "near_duplicate")
"""What can become of a document, by its number; a reject's fate is the name of its rule."""
KEPT, HELD_OUT, DUPLICATE, NEAR_DUPLICATE = range(4)


def unaccounted(sizes: Mapping[str, tuple[int, int]], spans: Mapping[str, list[tuple[int, int]]]) -> str | None:
    """Why the ranges do not cover the files, each byte once; None if they do.

    Args:
        sizes: origin -> (first byte, one past the last), measured without the reader.
        spans: origin -> the ranges that documents and rejects account for, in any order.
    """
    for origin in spans.keys() - sizes.keys():
        return f"{origin}: a document names it, and it is no file of this part"
    for origin, (start, end) in sizes.items():
        position = start
        for first, last in sorted(spans.get(origin, [])):
            if first == last:
                continue
            if first != position:
                what = "are not accounted for" if first > position else "are accounted for twice"
                return f"{origin}: bytes {min(first, position)} to {max(first, position)} {what}"
            position = last
        if position != end:
            what = "are not accounted for" if position < end else "are accounted for and not there"
            return f"{origin}: bytes {min(position, end)} to {max(position, end)} {what}"
    return None


def does_not_close(what: str) -> DataError:
    """The error for a ledger whose sums do not match."""
    return DataError(
        "ledger",
        f"{what}.",
        "A reader left bytes out, which is a fault of it: please report the file, or leave it out with data.exclude.",
    )


@dataclass(frozen=True)
class Sums:
    """Documents and bytes by fate."""

    documents: dict[str, int] = field(default_factory=dict)
    input_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of the files; of a source without files, of its text."""
    text_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of the text that was made from them; none for rejects that never became text."""

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(
            _added(self.documents, other.documents),
            _added(self.input_bytes, other.input_bytes),
            _added(self.text_bytes, other.text_bytes),
        )


def _added(one: Mapping[str, int], two: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(one) + Counter(two)).items()))


@dataclass(frozen=True)
class SourceLedger:
    """What became of everything in one source."""

    name: str
    group: str
    sums: Sums = Sums()
    licences: dict[str, int] = field(default_factory=dict)
    """Licence -> documents to learn from; "unknown" where none was named."""
    examples: tuple[str, ...] = ()
    """Some of what could not be read: "origin: reason"."""

    @property
    def kept(self) -> int:
        """Documents to learn from or to validate with."""
        return self.sums.documents.get("kept", 0) + self.sums.documents.get("held_out", 0)

    @property
    def kept_bytes(self) -> int:
        """Bytes of their text."""
        return self.sums.text_bytes.get("kept", 0) + self.sums.text_bytes.get("held_out", 0)

    @property
    def duplicates(self) -> int:
        """Documents that were left out since another one is equal or nearly so."""
        return self.sums.documents.get("duplicate", 0) + self.sums.documents.get("near_duplicate", 0)

    @property
    def rejected(self) -> int:
        """Everything else that was left out."""
        return sum(count for fate, count in self.sums.documents.items() if fate not in FATES)

    def values(self) -> dict[str, Any]:
        """For JSON; `SourceLedger.of` reads it."""
        return {
            "name": self.name,
            "group": self.group,
            "sums": vars(self.sums),
            "licences": self.licences,
            "examples": list(self.examples),
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> SourceLedger:
        """From what `values` gave."""
        return cls(
            values["name"], values["group"], Sums(**values["sums"]), values["licences"], tuple(values["examples"])
        )


def sum_lines(lines: Iterable[Mapping[str, Any]]) -> Sums:
    """The sums of finished lines of the ledger."""
    documents: Counter[str] = Counter()
    input_bytes: Counter[str] = Counter()
    text_bytes: Counter[str] = Counter()
    for line in lines:
        documents[line["fate"]] += 1
        input_bytes[line["fate"]] += line["bytes"]
        text_bytes[line["fate"]] += line.get("text", 0)
    return Sums(dict(sorted(documents.items())), dict(sorted(input_bytes.items())), dict(sorted(text_bytes.items())))
