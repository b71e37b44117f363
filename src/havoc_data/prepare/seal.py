"""The seal of a finished folder: the checksum of every file in it, written last.

    seal.json   {"files": {name: [bytes, BLAKE2b in hex]}, "checksum": of "files"}

A folder with a whole seal is what some stage wrote, bit by bit; anything else is made again, or refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from havoc_core.errors import DataError

SEAL = "seal.json"


def seal(folder: Path) -> None:
    """Write down every file of a folder."""
    files = {path.relative_to(folder).as_posix(): _measured(path) for path in folder.rglob("*") if path.is_file()}
    text = json.dumps({"files": files, "checksum": checksum_of(files)}, sort_keys=True)
    (folder / SEAL).write_text(text, encoding="utf-8")


def is_sealed(folder: Path) -> bool:
    """Whether every file of a folder is there and as it was written. Reads all of it."""
    try:
        return all(_measured(folder / name) == found for name, found in _sealed_files(folder).items())
    except (OSError, ValueError):
        return False


def check_sealed(folder: Path, *names: str, remedy: str) -> None:
    """Refuse files that are not as they were written.

    Args:
        folder: with its seal.
        names: of the files in it.
        remedy: what to do, for the message.

    Raises:
        DataError: names the first file that is missing or changed.
    """
    try:
        files = _sealed_files(folder)
    except (OSError, ValueError) as error:
        raise DataError(str(folder / SEAL), f"is damaged ({error}).", remedy) from None
    for name in names:
        try:
            found = _measured(folder / name)
        except OSError as error:
            raise DataError(str(folder / name), f"is damaged ({error.strerror}).", remedy) from None
        if found != files.get(name):
            raise DataError(str(folder / name), f"is damaged (its checksum is not that of {SEAL}).", remedy)


def checksum_of(values: Mapping[str, Any]) -> str:
    """Hex digest of plain values, however they are spelt as JSON."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _sealed_files(folder: Path) -> dict[str, list[Any]]:
    values = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    if not isinstance(values, dict) or checksum_of(values.get("files", {})) != values.get("checksum"):
        raise ValueError("its own checksum does not fit")
    files: dict[str, list[Any]] = values["files"]
    return files


def _measured(path: Path) -> list[Any]:
    """[bytes, checksum] of a file, as JSON gives them back."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return [file.tell(), digest]
