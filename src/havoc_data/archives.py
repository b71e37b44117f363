"""What is in a ZIP or tar archive, and what of it must not be read.

Nothing is extracted by its name: a path that leads out of the archive, a link or a device is named and left where it is.
"""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

from havoc_data.inputs import (
    BZIP2,
    DEFLATED,
    STORED,
    ZSTANDARD,
    Input,
    InputError,
    tar_step,
    zip_step,
)
from havoc_data.unpacking import BOMB_LEAST_BYTES, BOMB_RATIO, READ_BYTES

PACKED_ENDS = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}
"""End of a file's name -> how the file is packed."""
MAX_MEMBERS = 1_000_000
"""An archive with more members is not opened."""
_TAR_ENDS = {".tgz": "gz", ".tzst": "zst", ".tbz2": "bz2", ".tbz": "bz2", ".txz": "xz"}
_HEADER_BYTES = 64 * 2**20
"""Longest extended header of a tar archive that is read; a hostile one would fill the memory."""
_DRIVE = re.compile(r"[A-Za-z]:")
_METHODS = (STORED, DEFLATED, BZIP2, ZSTANDARD)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    """Its path in the archive."""
    packing: tuple[str, ...]
    """From the archive on disk to the file, for `Input.packing`."""
    bytes: int
    """Its length, unpacked from the archive."""
    packed_bytes: int
    """What it takes in the archive; of a compressed tar, its length."""


@dataclass(frozen=True)
class Refused:
    """Something in an archive that is not read."""

    name: str
    """Its path in the archive; "" where the archive itself is meant."""
    reason: str
    """Why, in words for the user."""
    bytes: int = 0
    """Its length, as far as it is known."""


@dataclass(frozen=True)
class Listing:
    """What is in an archive, in the archive's own order."""

    members: tuple[Member, ...]
    """What can be read."""
    refused: tuple[Refused, ...]
    """What cannot."""


def peeled(name: str) -> tuple[tuple[str, ...], str]:
    """(steps that unpack a file of this name, its name once that is done): "a.txt.gz" is (("gz",), "a.txt")."""
    steps: tuple[str, ...] = ()
    while (end := PurePosixPath(name).suffix.lower()) in PACKED_ENDS:
        name, steps = name[: -len(end)], (*steps, PACKED_ENDS[end])
    return steps, name


def archive_steps(name: str) -> tuple[str, ...] | None:
    """What is to be undone to reach the members of an archive of this name, "zip" or "tar" last; None if it is none."""
    steps, bare = peeled(name)
    end = PurePosixPath(bare).suffix.lower()
    if end == ".zip":
        return (*steps, "zip")
    if end == ".tar":
        return (*steps, "tar")
    return (*steps, _TAR_ENDS[end], "tar") if end in _TAR_ENDS else None


def list_archive(archive: Input, *, max_members: int = MAX_MEMBERS) -> Listing:
    """What is in an archive.

    Args:
        archive: the file on disk, nothing undone; `archive_steps` of its name is not None.
        max_members: an archive with more is not opened.

    Raises:
        DataError: it has changed since its folder was listed.
    """
    steps = archive_steps(archive.path.name) or ()
    try:
        if steps == ("zip",):
            members, refused = _in_zip(archive)
        elif steps[-1:] == ("zip",):
            raise InputError("a ZIP archive that is compressed once more is not opened; unpack it")
        else:
            members, refused = _in_tar(archive, steps[:-1], max_members)
    except InputError as error:
        return Listing((), (Refused("", error.reason, _size(archive)),))
    if len(members) + len(refused) > max_members:
        reason = f"it has more than {max_members:,} members; unpack it"
        return Listing((), (Refused("", reason, _size(archive)),))
    return _without_repeats(members, refused)


def _without_repeats(members: list[Member], refused: list[Refused]) -> Listing:
    """Of members of one name the last, as every program that unpacks archives has it."""
    last = {member.name: number for number, member in enumerate(members)}
    kept = []
    for number, member in enumerate(members):
        if last[member.name] == number:
            kept.append(member)
        else:
            refused.append(
                Refused(
                    "", f"its member {member.name} occurs again later in it, and only the last is read", member.bytes
                )
            )
    return Listing(tuple(kept), tuple(refused))


def _size(archive: Input) -> int:
    try:
        return archive.path.stat().st_size
    except OSError:
        return 0


def _why_unsafe(name: str) -> str | None:
    """Why a member must not be called like this."""
    if not name:
        return "it has no name"
    if "\\" in name:
        return "its path holds a backslash and may lead out of the archive"
    if name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        return "its path leads out of the archive"
    return "its name holds a zero byte" if "\0" in name else None


def _in_zip(archive: Input) -> tuple[list[Member], list[Refused]]:
    with archive.open_seekable() as file:
        try:
            with zipfile.ZipFile(file) as listing:
                entries = listing.infolist()
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
            raise InputError(f"its list of members is damaged or missing ({error}); it may be cut off") from None
    size = _size(archive)
    if sum(entry.file_size for entry in entries) > max(BOMB_LEAST_BYTES, BOMB_RATIO * size):
        raise InputError(f"it promises more than {BOMB_RATIO} times its size: a decompression bomb")
    members: list[Member] = []
    refused: list[Refused] = []
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.filename.endswith("/") and not entry.file_size:
            continue  # a folder
        reason = _why_unsafe(entry.orig_filename) or _why_not_from_zip(entry)
        if entry.header_offset < end:
            reason = "its bytes are those of another member too: a decompression bomb"
        end = max(end, entry.header_offset + 30 + entry.compress_size)
        if reason:
            refused.append(Refused(entry.orig_filename, reason, entry.file_size))
            continue
        step = zip_step(
            entry.filename,
            method=entry.compress_type,
            offset=entry.header_offset,
            packed=entry.compress_size,
            size=entry.file_size,
            crc=entry.CRC,
        )
        members.append(Member(entry.filename, (step,), entry.file_size, entry.compress_size))
    return members, refused


def _why_not_from_zip(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 1:
        return "it is encrypted"
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "it is a link, and links in archives are not followed"
    if kind not in (0, stat.S_IFREG):
        return "it is no regular file"
    if entry.compress_type not in _METHODS:
        return f"it is compressed by method {entry.compress_type}, which is not known here"
    return None


def _in_tar(archive: Input, steps: tuple[str, ...], max_members: int) -> tuple[list[Member], list[Refused]]:
    members: list[Member] = []
    refused: list[Refused] = []
    with Input(archive.origin, archive.path, steps, stamp=archive.stamp).open() as stream:
        forward = _Forward(stream)
        try:
            for info in _headers(forward):
                if len(members) + len(refused) > max_members:
                    return members, refused
                name = info.name
                reason = _why_unsafe(name) or _why_not_from_tar(info)
                if reason:
                    refused.append(Refused(name, reason, info.size if info.isreg() else 0))
                elif info.isreg():
                    step = tar_step(name, offset=info.offset_data, size=info.size)
                    members.append(Member(name, (*steps, step), info.size, info.size))
            reason = forward.why_not_whole()
        except (InputError, tarfile.TarError, ValueError, OverflowError) as error:
            if not members and not refused:
                raise InputError(f"it is damaged or no tar archive ({error})") from None
            reason = f"it breaks off or is damaged after {_last_name(members, refused)} ({error})"
    if reason:
        refused.append(Refused("", f"{reason}; the members before that are kept"))
        members = _clipped(members, forward.position)
    return members, refused


def _last_name(members: list[Member], refused: list[Refused]) -> str:
    return members[-1].name if members else refused[-1].name


def _clipped(members: list[Member], end: int) -> list[Member]:
    """The members of an archive that breaks off at `end`: the last may lack its end."""
    if not members:
        return []
    *whole, last = members
    *steps, step = last.packing
    offset = int(step.split(":", 2)[1])
    size = max(0, min(last.bytes, end - offset))
    return [*whole, Member(last.name, (*steps, tar_step(last.name, offset=offset, size=size)), size, size)]


def _why_not_from_tar(info: tarfile.TarInfo) -> str | None:
    if info.issym() or info.islnk():
        return "it is a link, and links in archives are not followed"
    if info.issparse():
        return "it is stored with holes, which is not read here"
    return None if info.isreg() or info.isdir() else "it is a device or no regular file"


def _headers(forward: _Forward) -> Iterator[tarfile.TarInfo]:
    archive = tarfile.TarFile(fileobj=cast(IO[bytes], forward), mode="r", encoding="utf-8")
    while (info := archive.next()) is not None:
        cast(Any, archive).members.clear()  # it would remember a million of them
        yield info


class _Forward(io.RawIOBase):
    """A stream that tarfile can read from its beginning to its end, and that knows how it ended."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._last = b""
        self.position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes: a header, or an extended one."""
        if size is None or not 0 <= size <= _HEADER_BYTES:
            raise InputError(f"a header of {size} bytes")
        self._last = self._stream.read(size)
        self.position += len(self._last)
        return self._last

    def tell(self) -> int:
        """Bytes read so far."""
        return self.position

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Pass over everything up to `offset`, or up to the end."""
        if whence or offset < self.position:
            raise InputError("a header that leads backwards")
        while self.position < offset and (block := self._stream.read(min(READ_BYTES, offset - self.position))):
            self.position += len(block)
        return self.position

    def why_not_whole(self) -> str | None:
        """What was wrong where tarfile, which says nothing about it, took the archive for finished; None if nothing."""
        if len(self._last) < tarfile.BLOCKSIZE:
            return "it has no end mark: it may be cut off"
        if self._last.strip(b"\0"):
            return "a header in it is damaged"
        ended = self.position
        while block := self._stream.read(READ_BYTES):
            if block.strip(b"\0"):
                return f"something follows its end mark at byte {ended:,}, which is not read"
        return None
