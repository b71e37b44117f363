"""What a source of text is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from havoc_core.registry import Shelf
from havoc_data.document import Document, Rejected

SOURCES = Shelf("havoc_data.sources", "data.sources.kind", "a kind of source")


class Source(Protocol):
    """Gives documents, always in the same order.

    A file on the shelf `sources/` has `Options` and `build(path, options) -> Source`, where path is
    the `path` of the setting or None.
    """

    def documents(self) -> Iterator[Document | Rejected]:
        """Every document once, and whatever did not become one."""
        ...

    def fingerprint(self) -> str:
        """Hex digest that changes when, and only when, the documents would; reads contents, not dates."""
        ...
