"""Files as the readers meet them: on disk, compressed, or inside an archive, always as a stream of plain bytes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

from havoc_core.errors import DataError
from havoc_data.unpacking import READ_BYTES, Blocks, InputError, Stream, bounded, checked, inflated, unpack

__all__ = [
    "WHOLE_FILE_BYTES",
    "Input",
    "InputError",
    "lies_in_packed_tar",
    "packed_bytes",
    "stamp_of",
    "tar_step",
    "unpacked_end",
    "unpacked_tars",
    "zip_step",
]

WHOLE_FILE_BYTES = 256 * 2**20
"""Largest file of a format that can only be read as a whole."""
STORED, DEFLATED, BZIP2, ZSTANDARD = 0, 8, 12, 93
"""Methods of compression in a ZIP archive that can be undone."""
_SPOOL_BYTES = 16 * 2**20
"""Unpacked files up to this size are kept in memory where they must be read in any order."""


@dataclass(frozen=True)
class Input:
    """One file to read, or a range of its bytes. Can be sent to another process."""

    origin: str
    """Path relative to the source's folder with forward slashes; inside an archive "archive.zip!/inner/path"."""
    path: Path
    """The file on disk: the file itself, or the archive it lies in."""
    packing: tuple[str, ...] = ()
    """What is to be undone to get from the file on disk to its bytes, in this order: gz, zst, bz2, xz, or a member of an
    archive as `zip_step` or `tar_step` writes it."""
    start: int = 0
    """First byte to read. Not 0 only where a large file on disk is read in several ranges."""
    end: int | None = None
    """One past the last byte to read; None: to the end."""
    stamp: tuple[int, int] | None = None
    """(bytes, time of the last change in ns) of the file on disk when it was listed; None: do not compare."""
    was_read: bool = False
    """Whether it was read before, and must be there: what is made of it is filed under a digest of its contents."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The unpacked bytes from `start` to `end`, to be read in order.

        Raises:
            InputError: it cannot be opened; also from `read` of what is given, where the data break off.
            DataError: when all is read: the file has changed since it was listed.
        """
        with self._on_disk() as file:
            yield cast(BinaryIO, Stream(self._blocks(file)))

    @contextmanager
    def open_seekable(self) -> Iterator[BinaryIO]:
        """The whole unpacked file, to be read in any order; a packed one is spooled to a temporary file first.

        Raises:
            InputError: it cannot be opened, or its data break off.
            DataError: the file has changed since it was listed, or there is no space for the temporary file.
        """
        if not self.packing:
            with self._on_disk() as file:
                yield file
            return
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
            with replace(self, start=0, end=None).open() as stream:
                while block := stream.read(READ_BYTES):
                    with _space_for(self.path):
                        spool.write(block)
            spool.seek(0)
            yield cast(BinaryIO, spool)

    def read_all(self, limit: int = WHOLE_FILE_BYTES) -> bytes:
        """All unpacked bytes from `start` to `end`.

        Raises:
            InputError: there are more than `limit`, or as for `open`.
            DataError: as for `open`.
        """
        with self.open() as stream:
            data = stream.read(limit + 1)
            if len(data) > limit:
                raise InputError(f"it has more than {limit:,} bytes, and must be read as a whole; cut it into parts")
            if stream.read(1):  # raises where the data break off; there is nothing else left
                raise AssertionError("read gave fewer bytes than there are")
            return data

    @contextmanager
    def _on_disk(self) -> Iterator[BinaryIO]:
        try:
            file = self.path.open("rb")
        except OSError as error:
            if self.was_read:
                raise DataError(
                    str(self.path),
                    f"cannot be read any more ({error.strerror or error}).",
                    "Start again when nothing moves files there any more, or leave it out with data.exclude.",
                ) from None
            raise InputError(f"it cannot be read ({error.strerror or error})") from None
        with file:
            try:
                yield file
            except InputError:
                self._check_unchanged(file)  # a file that was cut while it was read seems to be damaged
                raise
            self._check_unchanged(file)

    def _check_unchanged(self, file: BinaryIO) -> None:
        status = os.fstat(file.fileno())
        if self.stamp is not None and self.stamp != (status.st_size, status.st_mtime_ns):
            raise DataError(
                str(self.path),
                "changed while it was being read.",
                "Start again when nothing writes to it any more, or leave it out with data.exclude.",
            )

    def _blocks(self, file: BinaryIO) -> Blocks:
        packed_bytes = os.fstat(file.fileno()).st_size
        blocks = _from_disk(file, self.start, self.end)
        for number, step in enumerate(self.packing):
            kind, _, rest = step.partition(":")
            if kind == "zip":
                method, offset, packed_bytes, size, crc = (int(each) for each in rest.split(":", 5)[:5])
                blocks = checked(_from_zip(file, method, offset, packed_bytes), size, crc)
            elif kind == "tar":
                offset, size = _place_in_tar(step)
                if number == 0:
                    blocks = _promised(_from_disk(file, offset, offset + size), size)
                else:
                    blocks = _promised(_range(blocks, offset, size), size)
                packed_bytes = size
            else:
                blocks = unpack(blocks, step, packed_bytes)
        return blocks


def zip_step(name: str, *, method: int, offset: int, packed: int, size: int, crc: int) -> str:
    """How a member of a ZIP archive is written in `Input.packing`.

    Args:
        name: its path in the archive, for reading by people.
        method: how it is compressed: STORED, DEFLATED, BZIP2 or ZSTANDARD.
        offset: where its local header begins in the archive, in bytes.
        packed: compressed bytes.
        size: unpacked bytes.
        crc: CRC-32 of the unpacked bytes.
    """
    return f"zip:{method}:{offset}:{packed}:{size}:{crc}:{name}"


def tar_step(name: str, *, offset: int, size: int) -> str:
    """How a member of a tar archive is written in `Input.packing`: its first byte in the unpacked archive, its length."""
    return f"tar:{offset}:{size}:{name}"


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """`Input.stamp` of a file on disk."""
    return status.st_size, status.st_mtime_ns


def packed_bytes(item: Input) -> int:
    """Bytes that an input takes on disk, or in its archive; nothing is read.

    Args:
        item: with its `stamp`.
    """
    kind, _, rest = item.packing[0].partition(":") if item.packing else ("", "", "")
    if kind == "zip":
        return int(rest.split(":", 3)[2])
    place = next((step for step in item.packing if step.startswith("tar:")), None)
    if place is not None:
        return _place_in_tar(place)[1]
    on_disk = 0 if item.stamp is None else item.stamp[0]
    return max(0, (on_disk if item.end is None else item.end) - item.start)


def lies_in_packed_tar(item: Input) -> bool:
    """Whether everything before it must be unpacked to get at it."""
    return any(step.startswith("tar:") for step in item.packing[1:])


def unpacked_end(item: Input) -> int:
    """One past the last byte of an input that can be read, measured without a reader.

    Of a plain file its size or `item.end`; a packed one is unpacked to its end or to where its data break off. Of what
    cannot be opened at all, `item.start`.
    """
    try:
        on_disk = item.path.stat().st_size
    except OSError:
        return item.start
    if not item.packing:
        return max(item.start, on_disk if item.end is None else min(on_disk, item.end))
    if item.packing[-1].startswith("tar:"):
        offset, size = _place_in_tar(item.packing[-1])
        return size if len(item.packing) > 1 else max(0, min(size, on_disk - offset))
    position = 0
    try:
        with item.open() as stream:
            while block := stream.read(READ_BYTES):
                position += len(block)
    except InputError:
        pass  # every byte before the break was given and counted
    return position


@contextmanager
def unpacked_tars(items: Sequence[Input]) -> Iterator[dict[Input, Input]]:
    """Members of compressed tar archives, taken out of them in one pass an archive, into temporary files.

    Args:
        items: any inputs.

    Yields:
        Each input -> where its bytes can be read at once; itself unless it lies in a compressed tar.

    Raises:
        DataError: an archive has changed since it was listed, or there is no space for what is in it.
    """
    archives: dict[tuple[Path, tuple[str, ...]], list[tuple[int, int, Input]]] = {}
    found = {item: item for item in items}
    for item in found:
        place = next((number for number, step in enumerate(item.packing) if step.startswith("tar:")), 0)
        if place:
            member = (*_place_in_tar(item.packing[place]), item)
            archives.setdefault((item.path, item.packing[:place]), []).append(member)
    if not archives:
        yield found
        return
    with tempfile.TemporaryDirectory(prefix="havoc-") as folder:
        for number, ((path, steps), members) in enumerate(archives.items()):
            members.sort(key=lambda member: member[0])
            target = Path(folder) / str(number)
            archive = Input(members[0][2].origin, path, steps, stamp=members[0][2].stamp)
            try:
                found.update(_taken_out(archive, members, target))
            except InputError:
                pass  # as was said when it was listed; what could not be taken out says so when it is read
        yield found


def _taken_out(archive: Input, members: list[tuple[int, int, Input]], target: Path) -> Iterator[tuple[Input, Input]]:
    position = written = 0
    with archive.open() as stream, _space_for(archive.path), target.open("wb") as out:
        for offset, size, item in members:
            place, rest = written, item.packing[len(archive.packing) + 1 :]
            while position < offset + size:
                wanted = (offset if position < offset else offset + size) - position
                block = stream.read(min(READ_BYTES, wanted))
                if not block:
                    break
                if position >= offset:
                    written += out.write(block)
                position += len(block)
            step = tar_step(item.origin, offset=place, size=size)
            yield item, replace(item, path=target, packing=(step, *rest), stamp=None)


def _place_in_tar(step: str) -> tuple[int, int]:
    """(first byte, length) of a member."""
    _, offset, size, _ = step.split(":", 3)
    return int(offset), int(size)


@contextmanager
def _space_for(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            str(path),
            f"there is no room to unpack it in {tempfile.gettempdir()} ({error.strerror or error}).",
            "Make room there, or name another folder in the environment variable TMPDIR.",
        ) from None


def _from_disk(file: BinaryIO, start: int, end: int | None) -> Blocks:
    try:
        file.seek(start)
        while block := file.read(READ_BYTES if end is None else min(READ_BYTES, end - file.tell())):
            yield block
    except OSError as error:
        raise InputError(f"it cannot be read further ({error.strerror or error})") from None


def _from_zip(file: BinaryIO, method: int, offset: int, packed: int) -> Blocks:
    """The unpacked bytes of a member, from where its local header stands (APPNOTE.TXT 4.3.7)."""
    header = b"".join(_from_disk(file, offset, offset + 30))
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise InputError("its data are damaged (no header where the archive says)")
    start = offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    blocks = _promised(_from_disk(file, start, start + packed), packed)
    if method == STORED:
        yield from blocks
    elif method == DEFLATED:
        yield from bounded(inflated(blocks), packed)
    else:
        yield from unpack(blocks, {BZIP2: "bz2", ZSTANDARD: "zst"}[method], packed)


def _range(blocks: Blocks, offset: int, size: int) -> Blocks:
    """`size` bytes from `offset` on; what comes before is passed over."""
    position = 0
    for block in blocks:
        piece = block[max(0, offset - position) : max(0, offset + size - position)]
        position += len(block)
        if piece:
            yield piece
        if position >= offset + size:
            return


def _promised(blocks: Blocks, size: int) -> Blocks:
    """The blocks; `InputError` at their end if they are fewer than `size` bytes."""
    total = 0
    for block in blocks:
        total += len(block)
        yield block
    if total < size:
        raise InputError(f"its archive breaks off {size - total:,} bytes before its end")
