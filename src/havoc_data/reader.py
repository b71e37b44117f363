"""What a reader of a file format is.

A file on the shelf `readers/` has `Options` and `build(options) -> Reader`. The library that it needs is imported when
`build` is called, never before; a missing one is a ConfigError with the command that installs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from havoc_core.registry import Shelf
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input

READERS = Shelf("havoc_data.readers", "data.sources.options.formats", "a format")

FORMATS: Mapping[str, tuple[str, ...]] = {
    "text": (".txt", ".md", ".rst", ".text", ".markdown"),
    "jsonl": (".jsonl", ".ndjson"),
    "tex": (".tex", ".latex"),
    "xml": (".xml", ".mbx", ".ptx", ".dbk"),
    "html": (".html", ".htm", ".xhtml"),
    "notebook": (".ipynb",),
    "table": (".csv", ".tsv", ".parquet"),
    "pdf": (".pdf",),
}
"""Reader -> ends of the names of its files, before .gz or .zst; in lower case."""


def format_of(name: str) -> str | None:
    """The reader of a file that is called `name` once it is unpacked; None if there is none."""
    lower = name.lower()
    return next((reader for reader, ends in FORMATS.items() if lower.endswith(ends)), None)


class Reader(Protocol):
    """Turns files of one format into documents. Holds settings only: every process builds its own."""

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        """The files, those together that can only be read together, each first the one that is read.

        One file a unit, unless files of the format include one another. Keeps the order of the first ones.
        """
        ...

    def boundary(self, item: Input, near: int) -> int | None:
        """The first place at or after byte `near` where the file may be cut in two; None if it may not be cut.

        `near` lies inside the file. The answer depends on nothing but the file's bytes; the file's size if there is
        no such place before its end.
        """
        ...

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        """Every document of the unit, in the order of its bytes, and whatever did not become one.

        The byte ranges of all documents (with their `includes`) and rejects lie side by side and cover each file of
        the unit from `item.start` to its end, each byte once. Markup belongs to the document beside it. Ordinals
        count the documents of an origin. Memory does not grow with the file, or the file is no larger than
        `inputs.WHOLE_FILE_BYTES`.

        Raises:
            InputError: the file cannot be unpacked or read further; what was given so far stands.
        """
        ...
