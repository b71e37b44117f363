"""Packed bytes become plain ones, block by block, in bounded memory and never more than they may grow.

Every generator here gives all bytes that stand before the place where its data break off or are damaged, and then raises
`InputError`; of bzip2 and xz up to 4 KiB before that place may be missing.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

import zstandard

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

READ_BYTES = 2**20
"""How much is read from disk at a time."""
BOMB_RATIO = 200
"""What grows to more than so many times its packed size is taken for a bomb. Text shrinks to a tenth, JSON to a fiftieth."""
BOMB_LEAST_BYTES = 64 * 2**20
"""Up to this size, anything may grow as it likes."""
BOMB_BYTES = 2**40
"""Largest unpacked file of all."""

_FEED_BYTES = 64 * 1024
_STEP_BYTES = 4096
"""Output of one call of a decompressor that cannot be copied: so much is lost if the call fails."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
"""All but the first byte of the mark of a frame of somebody else's data."""


Blocks = Iterator[bytes]


class InputError(Exception):
    """A file cannot be read, or not further. Never reaches the user: it becomes a line of the ledger.

    Args:
        reason: why, in words for the user.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Stepwise(Protocol):
    """What decompressors of bz2 and xz have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def unpack(blocks: Blocks, step: str, packed_bytes: int) -> Blocks:
    """The bytes behind one step of packing: gz, zst, bz2 or xz.

    Args:
        blocks: packed bytes, cut anywhere.
        step: how they are packed.
        packed_bytes: what the bound on growth is measured by: bytes of the file on disk, or of the member of an archive.

    Raises:
        InputError: after all bytes before it: the data break off, are damaged, or grow without bounds.
    """
    return bounded(_UNPACKERS[step](blocks), packed_bytes)


def bounded(blocks: Blocks, packed_bytes: int) -> Blocks:
    """The blocks, up to the size from which they are a bomb; then `InputError`."""
    limit = min(BOMB_BYTES, max(BOMB_LEAST_BYTES, BOMB_RATIO * packed_bytes))
    total = 0
    for block in blocks:
        if total + len(block) > limit:
            yield block[: limit - total]
            raise InputError(
                f"it grows to more than {limit:,} bytes from {packed_bytes:,}: a decompression bomb; "
                f"unpack it yourself if it is none"
            )
        total += len(block)
        yield block


def inflated(blocks: Blocks) -> Blocks:
    """Raw deflate data, as in a ZIP archive."""
    yield from _one_deflate_stream(_Fed(blocks), -zlib.MAX_WBITS)


def checked(blocks: Blocks, size: int, crc: int) -> Blocks:
    """The blocks of a member of a ZIP archive; `InputError` at their end if size or checksum are not as promised."""
    total, running = 0, 0
    for block in blocks:
        total, running = total + len(block), zlib.crc32(block, running)
        if total > size:
            yield block[: size - total]
            raise InputError(f"its data are damaged (more than the {size:,} bytes that the archive promises)")
        yield block
    if total != size or running != crc:
        raise InputError("its data are damaged (the checksum does not fit)")


class _Fed:
    """Packed bytes, with what was taken too much put back."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._waiting = b""

    def take(self) -> bytes:
        """Some bytes; none at the end."""
        while not self._waiting:
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._waiting = block
        taken, self._waiting = self._waiting[:_FEED_BYTES], self._waiting[_FEED_BYTES:]
        return taken

    def put_back(self, data: bytes) -> None:
        """Give these again next time."""
        self._waiting = data + self._waiting

    def exactly(self, size: int) -> bytes:
        """`size` bytes, fewer at the end."""
        pieces, missing = [], size
        while missing and (piece := self.take()):
            if len(piece) > missing:
                self.put_back(piece[missing:])
                piece = piece[:missing]
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


def _gunzipped(blocks: Blocks) -> Blocks:
    """Member after member; zero bytes behind the last are padding."""
    fed, first = _Fed(blocks), True
    while True:
        head = fed.take()
        while head and not first and not head.strip(b"\0"):
            head = fed.take()
        if not head and not first:
            return
        fed.put_back(head if first else head.lstrip(b"\0"))
        yield from _one_deflate_stream(fed, zlib.MAX_WBITS | 16)
        first = False


def _one_deflate_stream(fed: _Fed, window: int) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(window)
    while not unpacker.eof:
        data = fed.take()
        if not data:
            raise InputError("its compressed data break off")
        while data and not unpacker.eof:
            # A failing call loses what it has unpacked; a copy from before it gives that byte by byte.
            before = unpacker.copy()
            try:
                block = unpacker.decompress(data, READ_BYTES)
            except zlib.error as error:
                yield from _up_to_the_damage(before, data)
                raise InputError(f"its compressed data are damaged ({error})") from None
            data = unpacker.unconsumed_tail
            if block:
                yield block
    fed.put_back(unpacker.unused_data)


def _up_to_the_damage(unpacker: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        try:
            block = unpacker.decompress(data[position : position + 1])
        except zlib.error:
            return
        if block:
            yield block


def _unzstd(blocks: Blocks) -> Blocks:
    """Frame after frame, and each block by block (RFC 8878, section 3.1).

    By hand, since the package's own reader takes a broken-off frame for the end of the file, and since a call that
    fails loses what it has unpacked: here that is never more than the damaged block.
    """
    fed, first = _Fed(blocks), True
    while (magic := fed.exactly(4)) or first:
        first = False
        if len(magic) == 4 and magic[1:] == _ZSTD_SKIPPABLE and magic[0] & 0xF0 == 0x50:
            length = int.from_bytes(_whole(fed, 4), "little")
            while length:
                length -= len(_whole(fed, min(length, READ_BYTES)))
            continue
        if len(magic) < 4 and _ZSTD_MAGIC.startswith(magic):
            raise InputError("its compressed data break off")
        try:
            yield from _one_zstd_frame(fed, magic)
        except zstandard.ZstdError as error:
            raise InputError(f"its compressed data are damaged ({error})") from None


def _one_zstd_frame(fed: _Fed, magic: bytes) -> Blocks:
    if magic != _ZSTD_MAGIC:
        raise InputError("its compressed data are damaged (no zstandard frame)")
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    descriptor = _whole(fed, 1)
    single, dictionary, size = descriptor[0] >> 5 & 1, descriptor[0] & 3, descriptor[0] >> 6
    rest = _whole(fed, (0 if single else 1) + (0, 1, 2, 4)[dictionary] + (single, 2, 4, 8)[size])
    unpacker.decompress(magic + descriptor + rest)
    last = False
    while not last:
        header = _whole(fed, 3)
        number = int.from_bytes(header, "little")
        last, kind, length = bool(number & 1), number >> 1 & 3, number >> 3
        if block := unpacker.decompress(header + _whole(fed, 1 if kind == 1 else length)):
            yield block
    if descriptor[0] & 4:
        unpacker.decompress(_whole(fed, 4))


def _whole(fed: _Fed, size: int) -> bytes:
    data = fed.exactly(size)
    if len(data) < size:
        raise InputError("its compressed data break off")
    return data


def _stepwise(make: Callable[[], _Stepwise], blocks: Blocks) -> Blocks:
    """Streams of bzip2 or xz, one after another."""
    fed, first = _Fed(blocks), True
    while (data := fed.take()) or first:
        first, unpacker = False, make()
        waiting: list[bytes] = []
        try:
            while not unpacker.eof:
                if unpacker.needs_input and not data and not (data := fed.take()):
                    raise InputError("its compressed data break off")
                waiting.append(unpacker.decompress(data, _STEP_BYTES))
                data = b""
                if len(waiting) * _STEP_BYTES >= READ_BYTES:
                    yield b"".join(waiting)
                    waiting = []
        except (OSError, EOFError, lzma.LZMAError) as error:
            yield b"".join(waiting)
            raise InputError(f"its compressed data are damaged ({error})") from None
        except InputError:
            yield b"".join(waiting)
            raise
        yield b"".join(waiting)
        fed.put_back(unpacker.unused_data)


def _unbzipped(blocks: Blocks) -> Blocks:
    return _stepwise(bz2.BZ2Decompressor, blocks)


def _unxz(blocks: Blocks) -> Blocks:
    return _stepwise(lzma.LZMADecompressor, blocks)


_UNPACKERS: Mapping[str, Callable[[Blocks], Blocks]] = {
    "gz": _gunzipped,
    "zst": _unzstd,
    "bz2": _unbzipped,
    "xz": _unxz,
}


class Stream(io.BufferedIOBase):
    """Blocks as a file that is read in order. An error comes only when every byte before it has been given.

    Args:
        blocks: the bytes; may raise `InputError`.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._block = memoryview(b"")
        self._error: InputError | None = None

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only where they end or break off; all of them if size is None or negative."""
        left = sys.maxsize if size is None or size < 0 else size
        pieces: list[bytes] = []
        while left and self._has_more(raising=not pieces):
            piece = bytes(self._block[:left])
            self._block = self._block[len(piece) :]
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        """What there is without waiting for more, at most `size` bytes."""
        if not size or not self._has_more(raising=True):
            return b""
        return self.read(len(self._block) if size < 0 else min(size, len(self._block)))

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """As `read`, into a buffer."""
        target = memoryview(buffer).cast("B")
        data = self.read(len(target))
        target[: len(data)] = data
        return len(data)

    def peek(self, size: int = 0, /) -> bytes:
        """The bytes that come next, without taking them; `readline` looks for the line end in them."""
        return bytes(self._block[: max(size, 8192)]) if self._has_more(raising=True) else b""

    def _has_more(self, *, raising: bool) -> bool:
        while not self._block and self._error is None:
            try:
                block = next(self._blocks, None)
            except InputError as error:
                self._error = error
            else:
                if block is None:
                    return False
                self._block = memoryview(block)
        if self._error is not None and not self._block and raising:
            raise self._error
        return bool(self._block)
