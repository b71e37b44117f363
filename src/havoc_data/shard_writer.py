"""Writes the shards of a token store; their layout is described in `store`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

SHARD_BYTES = 256 * 2**20
SUFFIXES = (".tok", ".doc", ".prov.zst")
"""Files of a shard."""
_FRAME_BYTES = 4 * 2**20
_COPY_BYTES = 2**20


class ShardWriter:
    """Writes the shards of one source, in memory that does not grow with them.

    Args:
        folder: made if missing.
        dtype: of the tokens.
        shard_bytes: a shard is sealed when its tokens are at least this large.
    """

    def __init__(self, folder: Path, *, dtype: np.dtype[Any], shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dtype = dtype
        self._shard_bytes = shard_bytes
        self._files: dict[str, _HashedFile] = {}
        self._num_tokens = self._num_documents = 0
        self._lines: list[bytes] = []
        self._lines_bytes = 0
        self.shards: list[dict[str, Any]] = []

    def add(self, ids: np.ndarray, provenance: Mapping[str, Any]) -> None:
        """Append one document."""
        self._open()
        self._files[".tok"].write(ids.astype(self._dtype, copy=False).tobytes())
        self._num_tokens += len(ids)
        self._num_documents += 1
        self._files[".doc"].write(self._num_tokens.to_bytes(8, "little"))
        line = json.dumps(provenance, sort_keys=True, ensure_ascii=False).encode() + b"\n"
        self._lines.append(line)
        self._lines_bytes += len(line)
        if self._lines_bytes >= _FRAME_BYTES:
            self._write_lines()
        self._seal_if_full()

    def append(self, folder: Path, shards: Sequence[Mapping[str, Any]]) -> None:
        """Append all documents of shards that another writer made, file by file."""
        for shard in shards:
            self._open()
            self._write_lines()
            for suffix in (".tok", ".prov.zst"):
                with (folder / (shard["name"] + suffix)).open("rb") as file:
                    while block := file.read(_COPY_BYTES):
                        self._files[suffix].write(block)
            offsets = np.fromfile(folder / f"{shard['name']}.doc", dtype="<u8")
            self._files[".doc"].write((offsets[1:] + np.uint64(self._num_tokens)).astype("<u8").tobytes())
            self._num_tokens += shard["tokens"]
            self._num_documents += shard["documents"]
            self._seal_if_full()

    def seal(self) -> None:
        """Finish the shard that is being written; does nothing if there is none."""
        if not self._files:
            return
        self._write_lines()
        self.shards.append(
            {
                "name": f"{len(self.shards):05d}",
                "tokens": self._num_tokens,
                "documents": self._num_documents,
                "files": {suffix: file.close() for suffix, file in self._files.items()},
            }
        )
        self._files, self._num_tokens, self._num_documents = {}, 0, 0

    def _open(self) -> None:
        if not self._files:
            name = f"{len(self.shards):05d}"
            self._files = {suffix: _HashedFile(self._folder / (name + suffix)) for suffix in SUFFIXES}
            self._files[".doc"].write(bytes(8))

    def _write_lines(self) -> None:
        """The waiting lines of provenance as a frame of their own; a file may hold any number of frames."""
        if self._lines:
            self._files[".prov.zst"].write(zstandard.ZstdCompressor(level=3).compress(b"".join(self._lines)))
            self._lines, self._lines_bytes = [], 0

    def _seal_if_full(self) -> None:
        if self._files[".tok"].size >= self._shard_bytes:
            self.seal()


class _HashedFile:
    """A file that is being written, and the checksum of what has been written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def close(self) -> list[Any]:
        """[bytes, SHA-256 in hex]"""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return [self.size, self._digest.hexdigest()]
