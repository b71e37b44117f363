"""The files of a source as parts: large ones cut, small ones together, every byte of each accounted for."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from havoc_core.errors import HavocError
from havoc_data.document import Document, Rejected, Span
from havoc_data.encoding import packages
from havoc_data.inputs import (
    Input,
    InputError,
    lies_in_packed_tar,
    packed_bytes,
    unpacked_end,
    unpacked_tars,
)
from havoc_data.licences import Licences
from havoc_data.reader import READERS, Reader
from havoc_data.unpacking import READ_BYTES

VERSION = 1
"""Raised when the same files would give other documents, so that nothing kept from before is taken for them."""
SPLIT_BYTES = 64 * 2**20
"""A plain file that is larger is cut near multiples of this, so that several processes can read it."""
PART_BYTES = 16 * 2**20
"""Small files are put together up to this size, packed as they are."""
_LIBRARIES: Mapping[str, str] = {"html": "trafilatura", "pdf": "pypdfium2", "table": "pyarrow"}
"""Reader -> the distribution that its texts depend on."""
_REASON_CHARACTERS = 300


_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FilePart:
    """Some files of a source, of one format. A `Part`."""

    reader: str
    """A file on the shelf of readers."""
    options: str
    """Its options, as JSON."""
    units: tuple[tuple[Input, ...], ...]
    """What is read, in this order."""
    licences: tuple[tuple[str, str], ...]
    """Origin -> licence, for those whose licence is known."""
    key: str
    """Hex digest of all that the documents depend on: contents, place, reader, options, licences, libraries."""

    def documents(self) -> Iterator[Document | Rejected]:
        """What the reader makes of each unit; what it breaks off before is rejected with its bytes.

        Raises:
            DataError: a file has changed since it was listed, or there is no space to unpack an archive.
        """
        reader = build_reader(self.reader, json.loads(self.options))
        licences = dict(self.licences)
        with unpacked_tars(self._inputs()) as places:
            for unit in self.units:
                for item in read_unit(reader, tuple(places[each] for each in unit)):
                    if isinstance(item, Document) and item.licence is None and item.origin in licences:
                        item = replace(item, licence=licences[item.origin])
                    yield item

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Origin -> (first byte, one past the last) of every file of it, unpacked."""
        items = self._inputs()
        # The length of a member of a tar archive is known, unless the member itself is packed.
        packed_twice = [each for each in items if lies_in_packed_tar(each) and not each.packing[-1].startswith("tar:")]
        sizes: dict[str, tuple[int, int]] = {}
        with unpacked_tars(packed_twice) as places:
            for item in items:
                start, end = item.start, unpacked_end(places.get(item, item))
                if item.origin in sizes:
                    start, end = min(start, sizes[item.origin][0]), max(end, sizes[item.origin][1])
                sizes[item.origin] = start, end
        return sizes

    def _inputs(self) -> list[Input]:
        return [item for unit in self.units for item in unit]


def build_reader(name: str, options: Mapping[str, Any]) -> Reader:
    """The reader of a format.

    Raises:
        ConfigError: an option is wrong.
        MissingPackageError: the package that it needs is not installed.
    """
    reader: Reader = READERS.module(name).build(READERS.options(name, options))
    return reader


@dataclass(frozen=True)
class Batch:
    """The files of one format."""

    reader: str
    """A file on the shelf of readers."""
    options: Mapping[str, Any]
    """Its options."""
    items: tuple[Input, ...]
    """In the order of their origins."""


def make_parts(
    batches: Sequence[Batch], licences: Licences, *, split_bytes: int = SPLIT_BYTES, part_bytes: int = PART_BYTES
) -> tuple[FilePart, ...]:
    """The files as parts, in the order of batches and origins. Reads every file once, for its digest.

    Args:
        batches: a format each.
        licences: of the files.
        split_bytes: as SPLIT_BYTES.
        part_bytes: as PART_BYTES.

    Raises:
        DataError: a file has changed since it was listed.
    """
    digests: dict[Path, str] = {}
    parts = []
    for batch in batches:
        reader = build_reader(batch.reader, batch.options)
        units = [piece for unit in reader.units(batch.items) for piece in _pieces(reader, unit, split_bytes)]
        for group in _groups(units, part_bytes):
            items = [item for unit in group for item in unit]
            for item in items:
                if item.path not in digests:
                    digests[item.path] = contents_digest(item)
            options = json.dumps(batch.options, sort_keys=True)
            known = {item.origin: licence for item in items if (licence := licences.of(item.origin)) is not None}
            described = [
                [
                    [each.origin, digests[each.path], each.packing, each.start, each.end, known.get(each.origin)]
                    for each in unit
                ]
                for unit in group
            ]
            named = json.dumps([VERSION, batch.reader, options, _libraries(batch.reader), described])
            key = hashlib.blake2b(named.encode(), digest_size=16).hexdigest()
            read = tuple(
                tuple(replace(each, was_read=digests[each.path] != _UNREADABLE) for each in unit) for unit in group
            )
            parts.append(FilePart(batch.reader, options, read, tuple(sorted(known.items())), key))
    return tuple(parts)


def contents_digest(item: Input) -> str:
    """Hex digest of the file on disk that an input lies in; "unreadable" if it cannot be read to its end.

    Raises:
        DataError: it has changed since it was listed.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Input(item.origin, item.path, stamp=item.stamp).open() as file:
            while block := file.read(READ_BYTES):
                digest.update(block)
    except InputError:
        return _UNREADABLE
    return digest.hexdigest()


def _libraries(reader: str) -> str:
    found = packages()
    if reader in _LIBRARIES:
        name = _LIBRARIES[reader]
        try:
            found += f", {name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            pass  # the reader does without it, or has said so
    return found


def _pieces(reader: Reader, unit: tuple[Input, ...], split_bytes: int) -> Iterator[tuple[Input, ...]]:
    """The unit, cut if it is one large file that may be cut."""
    first = unit[0]
    size = packed_bytes(first)
    if len(unit) > 1 or first.packing or size <= split_bytes:
        yield unit
        return
    cuts = [0]
    for near in range(split_bytes, size, split_bytes):
        if near <= cuts[-1]:
            continue
        try:
            cut = reader.boundary(first, near)
        except InputError:
            cut = None
        if cut is None:
            yield unit
            return
        if cut >= size:
            break
        cuts.append(cut)
    if len(cuts) == 1:
        yield unit
        return
    for start, end in zip(cuts, [*cuts[1:], size], strict=True):
        yield (replace(first, start=start, end=end),)


def _groups(units: Sequence[tuple[Input, ...]], part_bytes: int) -> Iterator[tuple[tuple[Input, ...], ...]]:
    """Units that are read by one process. The members of a compressed tar stay together: it is unpacked once."""
    group: list[tuple[Input, ...]] = []
    total, archive = 0, None
    for unit in units:
        its_archive = unit[0].path if lies_in_packed_tar(unit[0]) else None
        size = sum(packed_bytes(item) for item in unit)
        if group and (its_archive != archive or (its_archive is None and total + size > part_bytes)):
            yield tuple(group)
            group, total = [], 0
        group.append(unit)
        total, archive = total + size, its_archive
    if group:
        yield tuple(group)


def read_unit(reader: Reader, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
    """What the reader gives, and the bytes that it did not come to because it failed.

    What a reader passes over without an error is not invented here: the ledger notices it.

    Raises:
        DataError: a file has changed since it was listed.
    """
    account = _Account(unit)
    try:
        for item in reader.read(unit):
            account.add(item)
            yield item
    except InputError as error:
        reason = error.reason
    except (HavocError, MemoryError):
        raise
    except Exception as error:  # a hostile file may bring out any error of a library
        what = " ".join(str(error).split())[:_REASON_CHARACTERS]
        reason = f"the reader failed: {type(error).__name__}: {what}"
    else:
        yield from account.empty_files()
        return
    yield from account.left_over(reason)


class _Account:
    """Which bytes of the files of a unit have become a document or been rejected."""

    def __init__(self, unit: tuple[Input, ...]) -> None:
        self._unit = unit
        self._ranges: dict[str, list[tuple[int, int]]] = {item.origin: [] for item in unit}
        self._named: set[str] = set()

    def add(self, item: Document | Rejected) -> None:
        """Note the bytes of an item."""
        spans = item.spans if isinstance(item, Document) else (Span(item.origin, item.start, item.end),)
        for span in spans:
            self._named.add(span.origin)
            ranges = self._ranges.setdefault(span.origin, [])
            if ranges and ranges[-1][1] == span.start:
                ranges[-1] = ranges[-1][0], span.end
            else:
                ranges.append((span.start, span.end))

    def empty_files(self) -> Iterator[Rejected]:
        """Files of which the reader said nothing, since there is nothing in them."""
        for item in self._unit:
            if item.origin not in self._named and unpacked_end(item) == item.start:
                yield Rejected(item.origin, "it is empty", start=item.start, rule="empty")

    def left_over(self, reason: str) -> Iterator[Rejected]:
        """The bytes that were not noted, as far as they can be unpacked; the file that was read, in any case."""
        for item in self._unit:
            position, end = item.start, unpacked_end(item)
            gaps = []
            for start, stop in [*sorted(self._ranges[item.origin]), (end, end)]:
                if start > position:
                    gaps.append((position, start))
                position = max(position, stop)
            if not gaps and item is self._unit[0]:
                gaps = [(position, position)]
            for start, stop in gaps:
                yield Rejected(item.origin, reason, stop - start, start)
