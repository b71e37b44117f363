"""A folder, an archive or a file as a source: every file of it is read by the reader of its format, or named."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from havoc_core.errors import DataError
from havoc_data.archives import archive_steps, list_archive, peeled
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input
from havoc_data.licences import METADATA, Licences, is_licence_file, read_licences
from havoc_data.reader import FORMATS, format_of
from havoc_data.sources._files import Found, FoundFile, Patterns, find_files, nothing_came_out, nothing_to_read
from havoc_data.sources._parts import PART_BYTES, SPLIT_BYTES, Batch, FilePart, build_reader, make_parts


@dataclass(frozen=True)
class FileSource:
    """Files, format by format, each in the order of their origins. A `Source`."""

    path: Path
    """As given."""
    found: Found
    """What was there when the source was built."""
    batches: tuple[Batch, ...]
    """The files that are read, members of archives included."""
    beside: tuple[Rejected, ...]
    """What is not read."""
    licences: Licences
    """Of the files."""
    split_bytes: int = SPLIT_BYTES
    """A larger plain file is cut."""
    part_bytes: int = PART_BYTES
    """Smaller files are put together."""

    def parts(self) -> tuple[FilePart, ...]:
        """The files as parts; reads each once, for its digest, when it is first called.

        Raises:
            DataError: a file has changed since it was listed.
        """
        return self._parts

    def rejected(self) -> tuple[Rejected, ...]:
        """Files that are not read: hidden, left out, of no known format, licences, and what archives refuse."""
        return self.beside

    def files(self) -> tuple[tuple[str, int], ...]:
        """(origin, bytes on disk) of everything in the folder, read or not; a hidden folder is one entry."""
        others = [(each.origin, each.bytes) for each in self.found.rejected]
        return tuple(sorted([*((file.origin, file.bytes) for file in self.found.files), *others]))

    def documents(self) -> Iterator[Document | Rejected]:
        """What is not read, then every file of every part.

        Raises:
            DataError: at the end, if there was not one document; or a file has changed since it was listed.
        """
        yield from self.beside
        given, rejected, first = 0, 0, None
        for part in self.parts():
            for item in part.documents():
                if isinstance(item, Document):
                    given += 1
                else:
                    rejected, first = rejected + 1, first or item
                yield item
        if not given:
            raise self.nothing_came_out(rejected, first)

    def nothing_came_out(self, rejected: int, first: Rejected | None) -> DataError:
        """The error for a source whose parts gave no document, for whoever read them."""
        return nothing_came_out(self.path, rejected, first)

    def fingerprint(self) -> str:
        """Hex digest of names, contents, options and of what is not read."""
        # Not the reasons: they are words for the user, and another wording is no other text.
        beside = [[each.origin, each.rule, each.start, each.bytes] for each in self.beside]
        named = json.dumps([[part.key for part in self.parts()], beside])
        return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()

    @cached_property
    def _parts(self) -> tuple[FilePart, ...]:
        return make_parts(self.batches, self.licences, split_bytes=self.split_bytes, part_bytes=self.part_bytes)


def find_source(
    kind: str, path: Path, *, formats: Sequence[str], exclude: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> FileSource:
    """The files at or below `path` that a source of kind `kind` reads.

    Args:
        kind: its name, for messages.
        path: a folder, or one file, which is read by the first of `formats` if its name tells nothing.
        formats: readers, names in FORMATS.
        exclude: patterns of files to leave out.
        options: reader -> its options.

    Raises:
        ConfigError: an option of a reader is wrong.
        DataError: nothing is there, or nothing that is there can be read.
        MissingPackageError: a reader whose files are there needs a package that is not installed.
    """
    found = find_files(path, exclude=exclude)
    sorter = _Sorter(kind, tuple(formats), Patterns.of(exclude))
    if found.is_file:
        sorter.single(found.files[0])
    else:
        for file in found.files:
            sorter.file(file)
    batches = tuple(
        Batch(
            name,
            options.get(name, {}),
            tuple(sorted(sorter.items[name], key=lambda item: item.origin.encode())),
        )
        for name in FORMATS
        if name in sorter.items
    )
    licences, wrong = read_licences(sorter.licences, sorter.sidecars)
    beside = tuple(sorted([*found.rejected, *sorter.rejected, *wrong], key=lambda each: each.origin.encode()))
    if not batches:
        raise nothing_to_read(path, beside, [end for name in formats for end in FORMATS[name]])
    for batch in batches:
        build_reader(batch.reader, batch.options)  # says now if a package is missing
    return FileSource(path, found, batches, beside, licences)


@dataclass
class _Sorter:
    """Puts every file where it belongs."""

    kind: str
    formats: tuple[str, ...]
    exclude: Patterns
    items: dict[str, list[Input]] = field(default_factory=dict)
    licences: list[Input] = field(default_factory=list)
    sidecars: list[Input] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def file(self, file: FoundFile) -> None:
        """A file on disk."""
        item = Input(file.origin, file.path, stamp=file.stamp)
        if archive_steps(file.origin) is not None and not self._is_text(file.origin):
            self._archive(item)
        else:
            self._item(item, file.bytes)

    def single(self, file: FoundFile) -> None:
        """A file that was named itself, and is read whatever it is called."""
        item = Input(file.origin, file.path, stamp=file.stamp)
        steps, bare = peeled(file.path.name)
        name = format_of(bare)
        if archive_steps(file.path.name) is not None:
            self._archive(item)
        else:
            reader = name if name in self.formats else self.formats[0]
            self.items.setdefault(reader, []).append(dataclasses.replace(item, packing=steps))

    def _is_text(self, origin: str) -> bool:
        return format_of(peeled(origin)[1]) is not None

    def _archive(self, archive: Input) -> None:
        listing = list_archive(archive)
        for refused in listing.refused:
            origin = f"{archive.origin}!/{refused.name}" if refused.name else archive.origin
            self.rejected.append(Rejected(_printable(origin), refused.reason, refused.bytes))
        for member in listing.members:
            origin = _printable(f"{archive.origin}!/{member.name}")
            pattern = self.exclude.first_match(origin)
            if any(part.startswith(".") or part == "__MACOSX" for part in member.name.split("/")):
                self.rejected.append(
                    Rejected(origin, "hidden file: its name begins with a dot", member.bytes, rule="hidden")
                )
            elif pattern is not None:
                self.rejected.append(
                    Rejected(origin, f"left out by exclude '{pattern}'", member.bytes, rule="excluded")
                )
            elif archive_steps(origin) is not None and not self._is_text(origin):
                reason = "an archive inside an archive is not opened; unpack it"
                self.rejected.append(Rejected(origin, reason, member.bytes))
            else:
                self._item(dataclasses.replace(archive, origin=origin, packing=member.packing), member.bytes)

    def _item(self, item: Input, size: int) -> None:
        name = item.origin.rpartition("/")[2]
        steps, bare = peeled(name)
        reader = format_of(bare)
        if name == METADATA:
            self.sidecars.append(item)
            self.rejected.append(Rejected(item.origin, "it describes other files", size, rule="metadata_file"))
        elif is_licence_file(name):
            self.licences.append(item)
            self.rejected.append(Rejected(item.origin, "it is the licence of other files", size, rule="licence_file"))
        elif reader in self.formats:
            packing = (*item.packing, *steps)
            self.items.setdefault(reader, []).append(dataclasses.replace(item, packing=packing))
        else:
            end = Path(bare).suffix.lower() or "nothing"
            by = "any reader" if self.kind == "files" else f"a source of kind {self.kind}"
            reason = f"files that end in {end} are not read by {by}"
            self.rejected.append(Rejected(item.origin, reason, size, rule="no_reader"))


def _printable(origin: str) -> str:
    """The origin as valid UTF-8: bytes of a tar archive's names that are not are written as \\xNN."""
    return origin.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
