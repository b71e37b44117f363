"""The safetensors format, written and read one tensor at a time.

    8 bytes    length of the header, little-endian
    header     JSON: name -> dtype, shape, [first byte, byte after the last] of its data; padded with spaces
    data       tensor after tensor, contiguous, little-endian

https://github.com/huggingface/safetensors, README "Format". Written here because the package writes from memory only,
and because reading it needs no package then.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from havoc_core.errors import DataError
from havoc_core.tensor_file import TensorSource

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MAX_SHARD_BYTES = 5_000_000_000
"""Bytes of tensors in one file, as Hugging Face cuts its own."""
_MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference reader."""
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_REMEDY = "Get the file again."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a file."""

    path: Path
    start: int
    """Bytes from the beginning of the file."""
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            DataError: the file cannot be read.
        """
        buffer = np.empty(self.nbytes, dtype=np.uint8)
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                complete = file.readinto(buffer.data) == self.nbytes
        except OSError as error:
            raise DataError(str(self.path), f"cannot be read ({error.strerror}).", _REMEDY) from None
        if not complete:
            raise DataError(str(self.path), "breaks off while its weights are read.", _REMEDY)
        if not buffer.size:
            return torch.empty(self.shape, dtype=self.dtype)
        return torch.frombuffer(buffer, dtype=self.dtype).view(self.shape)


def write(path: Path, tensors: Mapping[str, TensorSource]) -> None:
    """Write one file; no more than one tensor is held in memory.

    Raises:
        OSError: it cannot be written.
    """
    assert sys.byteorder == "little", "the format is little-endian"
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, source in tensors.items():
        header[name] = {
            "dtype": _NAMES[source.dtype],
            "shape": list(source.shape),
            "data_offsets": [at, at + source.nbytes],
        }
        at += source.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of eight bytes
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for source in tensors.values():
            file.write(source.made().contiguous().view(-1).view(torch.uint8).numpy().data)


def write_folder(
    folder: Path, tensors: Mapping[str, TensorSource], *, max_shard_bytes: int = MAX_SHARD_BYTES
) -> list[str]:
    """Write `model.safetensors`, or several files and their index where there is more than `max_shard_bytes`.

    Returns:
        Names of the files that hold weights.

    Raises:
        OSError: they cannot be written.
    """
    shards: list[dict[str, TensorSource]] = [{}]
    for name, source in tensors.items():
        filled = sum(each.nbytes for each in shards[-1].values())
        if shards[-1] and filled + source.nbytes > max_shard_bytes:
            shards.append({})
        shards[-1][name] = source
    if len(shards) == 1:
        write(folder / SINGLE, shards[0])
        return [SINGLE]
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for file_name, shard in zip(names, shards, strict=True):
        write(folder / file_name, shard)
    total = sum(source.nbytes for source in tensors.values())
    places = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return names


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """Where the tensors of a Hugging Face folder lie, whether it has one file or several.

    Raises:
        DataError: there is no such file, or one is damaged or holds numbers of a kind that is not read here.
    """
    if not (folder / INDEX).is_file():
        return read_header(folder / SINGLE)
    try:
        places = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = sorted({str(file) for file in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(str(folder / INDEX), f"is no index of weights ({error}).", _REMEDY) from None
    found: dict[str, StoredTensor] = {}
    for file in files:
        if Path(file).name != file:
            raise DataError(str(folder / INDEX), f"names {file}, which is no file of this folder.", _REMEDY)
        found |= {name: each for name, each in read_header(folder / file).items() if places.get(name) == file}
    missing = next((name for name in places if name not in found), None)
    if missing is not None:
        raise DataError(str(folder / INDEX), f"{missing} is not in the file that the index names.", _REMEDY)
    return found


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Where the tensors of one file lie.

    Raises:
        DataError: it is missing, damaged, or holds numbers of a kind that is not read here.
    """
    if not path.is_file():
        raise DataError(str(path), "there is no such file of weights.", "Name a folder with model.safetensors.")
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise ValueError(f"a header of {length:,} bytes")
            values = json.loads(file.read(length))
        return dict(_places(path, values, first=8 + length))
    except OSError as error:
        raise DataError(str(path), f"cannot be opened ({error.strerror}).", _REMEDY) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(str(path), f"is no safetensors file, or a damaged one ({error}).", _REMEDY) from None


def _places(path: Path, values: dict[str, Any], *, first: int) -> Iterator[tuple[str, StoredTensor]]:
    size = path.stat().st_size
    for name, entry in values.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise DataError(
                str(path),
                f"{name} holds numbers of kind {entry['dtype']}.",
                f"Only {', '.join(_DTYPES)} are read here; convert it first.",
            )
        begin, end = (int(each) for each in entry["data_offsets"])
        stored = StoredTensor(path, first + begin, tuple(int(n) for n in entry["shape"]), _DTYPES[entry["dtype"]])
        if begin < 0 or end - begin != stored.nbytes or first + end > size or min(stored.shape, default=0) < 0:
            raise ValueError(f"the place of {name} does not fit its shape or the file")
        yield name, stored
