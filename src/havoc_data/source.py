"""What a source of text is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from havoc_core.registry import Shelf
from havoc_data.document import Document, Rejected

SOURCES = Shelf("havoc_data.sources", "data.sources.kind", "a kind of source")


class Part(Protocol):
    """Some of a source's documents, small enough for one process. Can be sent to another process."""

    @property
    def key(self) -> str:
        """Hex digest of everything that its documents depend on: contents, options, version of the reader."""
        ...

    def documents(self) -> Iterator[Document | Rejected]:
        """Its documents and whatever did not become one, always the same."""
        ...

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Origin -> (first byte, one past the last) of every file of it, measured without the reader: what the ledger
        must account for. Empty where there are no files."""
        ...


class Source(Protocol):
    """Gives documents, always in the same order.

    A file on the shelf `sources/` has `Options` and `build(path, options) -> Source`, where path is
    the `path` of the setting or None.
    """

    def parts(self) -> Sequence[Part]:
        """The source cut into parts, always in the same way, whatever machine reads them."""
        ...

    def rejected(self) -> Sequence[Rejected]:
        """What was found beside the parts and is not read."""
        ...

    def fingerprint(self) -> str:
        """Hex digest that changes when, and only when, the documents would; reads contents, not dates."""
        ...


@dataclass(frozen=True)
class WholeSource:
    """A source that makes its documents itself, as one part. It is built again where it is read."""

    kind: str
    """A file on the shelf of sources, or a module of the user's own."""
    path: str | None
    """As for its `build`."""
    options: dict[str, Any]
    """As for its `Options`."""
    key: str
    """The fingerprint of the source."""

    def documents(self) -> Iterator[Document | Rejected]:
        """All documents of the source. It has a method `documents`."""
        module = SOURCES.module(self.kind)
        yield from module.build(self.path, SOURCES.options(self.kind, self.options)).documents()

    def sizes(self) -> dict[str, tuple[int, int]]:
        """None: there are no files."""
        return {}
