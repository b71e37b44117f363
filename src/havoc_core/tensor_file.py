"""Torch files written tensor by tensor, in memory for the largest one only.

    skeleton   torch.save inside torch.serialization.skip_data: structure, names and room for every tensor, no values
    places     the skeleton is mapped; where a tensor's storage begins in the mapping, there its bytes belong
    values     tensor after tensor is made in one window of memory and written to its place, with its checksum

What comes out is an ordinary torch file: a zip archive without compression, one record `data/N` per storage. The file
is written, not mapped, while values go in: a full disk is an OSError there, and the end of the process (SIGBUS) in a
mapping.

What this rests on, besides torch.save and torch.load: `skip_data`, which torch documents and calls a prototype, and
`set_default_mmap_options`, documented as well. The numbering of records is not relied on. That a mapped storage lies at
its record's offset is how `mmap=True` works, though no page says so: it is compared with the zip's own directory for
every file before a value is written. Checked on torch 2.11, 2.12 and 2.13.
"""

from __future__ import annotations

import math
import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ALIGNMENT = 64
_PIECE_BYTES = 1 << 22
"""Checksum and write go over the window in pieces that stay in the processor's cache between the two."""

# PKWARE's APPNOTE.TXT, sections 4.3.7 to 4.3.16: the places of what is read and corrected here.
_DESCRIPTOR = b"PK\x07\x08"
_CENTRAL, _CENTRAL_BYTES = b"PK\x01\x02", 46
_END, _END_BYTES = b"PK\x05\x06", 22
_END_64_LOCATOR_BYTES = 20
_HAS_DESCRIPTOR = 0x08


@dataclass(frozen=True)
class TensorSource:
    """A tensor that is made when it is written."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    fill: Callable[[Tensor], None]
    """Writes all values into the contiguous CPU tensor of this shape and dtype that it is given, which holds anything
    before and must not be kept: its memory is the next tensor's. Called once, without gradients."""

    @classmethod
    def of(cls, tensor: Tensor) -> TensorSource:
        """Copies `tensor`, on whatever device it lies, with the values that it has when it is written."""

        def copy(out: Tensor) -> None:
            out.copy_(tensor)

        return cls(tuple(tensor.shape), tensor.dtype, copy)

    def made(self) -> Tensor:
        """The tensor itself, on the CPU."""
        out = torch.empty(self.shape, dtype=self.dtype)
        with torch.no_grad():
            self.fill(out)
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Record:
    """A storage in the archive. All places are bytes from the beginning of the file."""

    start: int
    nbytes: int
    checksums: tuple[int, int]
    """Where its CRC-32 stands: beside it, and in the archive's directory."""


def has_sources(values: Any) -> bool:
    """Whether a TensorSource stands anywhere in nested dicts, lists and tuples."""
    return any(isinstance(leaf, TensorSource) for leaf in _leaves(values))


def write(path: Path, values: Any) -> None:
    """Write nested dicts, lists and tuples of TensorSources, tensors and plain values as a torch file.

    Every tensor gets a storage of its own; no more than the largest is held in memory besides the tensors handed in.
    `torch.load(path, weights_only=True)`, mapped or not, gives dicts, lists and tuples of tensors and plain values.

    Raises:
        OSError: the file cannot be written. What a source's `fill` raises passes too; the file is then incomplete.
        RuntimeError: this torch lays its files out in a way that is not known here; nothing is written then.
    """
    values = _with_leaves(values, lambda leaf: TensorSource.of(leaf) if isinstance(leaf, Tensor) else leaf)
    sources = [leaf for leaf in _leaves(values) if isinstance(leaf, TensorSource)]
    window = _Window(sources)
    skeleton = _with_leaves(values, lambda leaf: window.tensor(leaf) if isinstance(leaf, TensorSource) else leaf)
    with path.open("wb") as file, torch.serialization.skip_data():
        torch.save(skeleton, file)
    places = locate(path, sources)
    with path.open("r+b") as file:
        for place, source in zip(places, sources, strict=True):
            if place is not None:
                with torch.no_grad():
                    source.fill(window.tensor(source))
                _write_record(file, place, window.bytes_of(source))


class _Window:
    """Memory for one tensor at a time.

    Tensors of different dtypes begin at different places in it: torch.save refuses two storages at one address with
    different dtypes, though it reads neither here.
    """

    def __init__(self, sources: Sequence[TensorSource]) -> None:
        dtypes = dict.fromkeys(source.dtype for source in sources)
        self._starts = {dtype: at * _ALIGNMENT for at, dtype in enumerate(dtypes)}
        nbytes = max((self._starts[source.dtype] + source.nbytes for source in sources), default=0)
        self._memory: npt.NDArray[np.uint8] = torch.empty(nbytes, dtype=torch.uint8).numpy()

    def tensor(self, source: TensorSource) -> Tensor:
        """A tensor with a storage of its own, the window's memory behind it."""
        if source.nbytes == 0:
            return torch.empty(source.shape, dtype=source.dtype)
        memory = self.bytes_of(source)
        return torch.frombuffer(memory, dtype=source.dtype, count=math.prod(source.shape)).view(source.shape)

    def bytes_of(self, source: TensorSource) -> npt.NDArray[np.uint8]:
        """The part of the window that `tensor(source)` lies in."""
        start = self._starts[source.dtype]
        return self._memory[start : start + source.nbytes]


def locate(path: Path, sources: Sequence[TensorSource]) -> list[Record | None]:
    """Where in a torch file the bytes of its tensors belong, in the order in which they stand in its structure.

    None stands for a tensor without values.

    Raises:
        RuntimeError: the tensors do not fill the archive's records one to one.
    """
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):  # a private mapping of 80 GB counts as memory
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    storages = [leaf.untyped_storage() for leaf in _leaves(loaded) if isinstance(leaf, Tensor)]
    records = {record.start: record for record in _records(path)}
    # The first record that is not empty is mapped to the lowest address; all others lie as far from it as in the file.
    shift = min(records, default=0) - min((each.data_ptr() for each in storages if each.nbytes()), default=0)
    places = [records.get(each.data_ptr() + shift) if each.nbytes() else None for each in storages]
    found = [place.nbytes if place else 0 for place in places]
    taken = sorted(place.start for place in places if place)
    if found != [source.nbytes for source in sources] or taken != sorted(records):
        raise RuntimeError(f"torch {torch.__version__} lays its files out in a way that this HAVOC does not know")
    return places


def _records(path: Path) -> Iterator[Record]:
    """The storages in a torch file that are not empty."""
    with path.open("rb") as file:
        entries = _directory(file)
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
        for info in infos:
            if "data" not in Path(info.filename).parts or info.file_size == 0:
                continue
            file.seek(info.header_offset)
            name_bytes, extra_bytes = struct.unpack("<26x2H", file.read(30))
            start = info.header_offset + 30 + name_bytes + extra_bytes
            checksum = info.header_offset + 14
            if info.flag_bits & _HAS_DESCRIPTOR:
                file.seek(start + info.file_size)
                # The signature in front of a descriptor is customary, not required.
                checksum = start + info.file_size + (4 if file.read(4) == _DESCRIPTOR else 0)
            yield Record(start, info.file_size, (checksum, entries[info.filename] + 16))


def _directory(file: BinaryIO) -> dict[str, int]:
    """Name -> where its entry of the zip's central directory stands, which the standard library does not tell."""
    end = file.seek(-_END_BYTES, 2)
    signature, entries, at = struct.unpack("<4s6xH4xL2x", file.read(_END_BYTES))
    if signature != _END:
        raise RuntimeError("the archive does not end as torch ends its files")
    if at == 0xFFFFFFFF or entries == 0xFFFF:
        file.seek(end - _END_64_LOCATOR_BYTES)
        (end_64,) = struct.unpack("<8xQ4x", file.read(_END_64_LOCATOR_BYTES))
        file.seek(end_64)
        entries, at = struct.unpack("<32xQ8xQ", file.read(56))
    places = {}
    for _ in range(entries):
        file.seek(at)
        signature, *lengths = struct.unpack("<4s24x3H12x", file.read(_CENTRAL_BYTES))
        if signature != _CENTRAL:
            raise RuntimeError("the archive's directory is not where its end says")
        places[file.read(lengths[0]).decode()] = at
        at += _CENTRAL_BYTES + sum(lengths)
    return places


def _write_record(file: BinaryIO, record: Record, content: npt.NDArray[np.uint8]) -> None:
    checksum = 0
    file.seek(record.start)
    for at in range(0, len(content), _PIECE_BYTES):
        piece = content[at : at + _PIECE_BYTES].data
        checksum = zlib.crc32(piece, checksum)
        file.write(piece)
    for place in record.checksums:
        file.seek(place)
        file.write(struct.pack("<L", checksum))


def _leaves(values: Any) -> Iterator[Any]:
    if isinstance(values, dict):
        for value in values.values():
            yield from _leaves(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)
    else:
        yield values


def _with_leaves(values: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure of plain dicts, lists and tuples with every leaf changed."""
    if isinstance(values, dict):
        return {key: _with_leaves(value, change) for key, value in values.items()}
    if isinstance(values, list | tuple):
        changed = [_with_leaves(value, change) for value in values]
        return tuple(changed) if isinstance(values, tuple) else changed
    return change(values)
