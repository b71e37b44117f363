"""Token files that lie elsewhere: object storage, another machine, whatever fsspec can read.

Only the tokens stay there; everything else of a store is small and is copied once. Rows are read as ranges of bytes. Since
the order of a run is known, the ranges of the next steps are on their way before they are asked for.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from havoc_core.errors import ConfigError, DataError, MissingPackageError

_THREADS = 16
_WAITING = 16384
"""Ranges on their way or waiting to be used, at most; the oldest are forgotten, and read again if they are wanted."""


class RemoteFolder:
    """A folder behind a URL such as s3://bucket/store, gs://…, sftp://…, memory://….

    Raises:
        ConfigError: fsspec does not know the kind of URL.
        MissingPackageError: it knows it, and the package that reads it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise MissingPackageError(
                "data.store",
                f"{url} cannot be read ({error}).",
                "Install the package that it names: pip install s3fs, for example.",
            ) from None
        except ValueError as error:
            raise ConfigError(
                "data.store", f"{url} is no folder and no URL that fsspec knows ({error}).", "Name a folder or a URL."
            ) from None
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="read-ahead")

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            DataError: it is not there.
        """
        return int(self._asked(name, lambda path: self._files.info(path)["size"]))

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> bytes:
        """A file, or bytes [start, stop) of it.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        return bytes(self._asked(name, lambda path: self._files.cat_file(path, start=start, end=stop)))

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file; it appears under its name when it is whole."""
        to.parent.mkdir(parents=True, exist_ok=True)
        beside = to.with_name(f".{to.name}.writing")
        self._asked(name, lambda path: self._files.get_file(path, str(beside)))
        beside.replace(to)

    def digest(self, name: str) -> str:
        """SHA-256 of a file, in hex; it is read whole.

        Raises:
            DataError: it is not there, or cannot be read.
        """

        def read(path: str) -> str:
            with self._files.open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return str(self._asked(name, read))

    def submit(self, name: str, start: int, stop: int) -> Future[bytes]:
        """As `read`, in the background."""
        return self._pool.submit(self.read, name, start, stop)

    def _asked(self, name: str, question: Callable[[str], Any]) -> Any:
        try:
            return question(f"{self._root}/{name}")
        except OSError as error:
            raise DataError(
                f"{self.url}/{name}", f"cannot be read ({error}).", "Check data.store, your rights, and the network."
            ) from None


class RemoteTokens:
    """The tokens of one shard. Slices are read as they are asked for."""

    def __init__(self, folder: RemoteFolder, name: str, dtype: np.dtype[Any]) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._coming: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()

    def __getitem__(self, wanted: slice) -> np.ndarray:
        """Tokens [start, stop)."""
        start, stop = wanted.start * self._dtype.itemsize, wanted.stop * self._dtype.itemsize
        coming = self._coming.pop((start, stop), None)
        data = coming.result() if coming is not None else self._folder.read(self._name, start, stop)
        if len(data) != stop - start:
            raise DataError(
                f"{self._folder.url}/{self._name}",
                f"ends at byte {start + len(data):,}, and bytes up to {stop:,} were asked for.",
                "The store was changed or not copied whole: copy it again.",
            )
        return np.frombuffer(data, dtype=self._dtype)

    def read_ahead(self, start: int, stop: int) -> None:
        """Begin to read tokens [start, stop)."""
        key = (start * self._dtype.itemsize, stop * self._dtype.itemsize)
        if key not in self._coming:
            self._coming[key] = self._folder.submit(self._name, *key)
            if len(self._coming) > _WAITING:
                self._coming.popitem(last=False)[1].cancel()
