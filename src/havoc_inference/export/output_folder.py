"""The folder of an export: written beside, flushed, renamed; it says what it is and what its files' checksums are.

An export that is there already is replaced as a whole; anything else in the way is left alone.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from havoc_core import checkpoint
from havoc_core.errors import CheckpointError, ConfigError

RECORD = "havoc_export.json"
FORMAT = "havoc-export"
VERSION = 1


def read_record(folder: Path) -> dict[str, Any] | None:
    """What an export says of itself; None where there is none of ours."""
    try:
        values = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and values.get("format") == FORMAT else None


def refuse_to_overwrite(folder: Path) -> None:
    """Whether an export may be written to this folder: it is new, empty, or holds an earlier export.

    Raises:
        ConfigError: it holds something else.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ConfigError("--out", f"{folder} is no folder.", "Name a new folder: --out FOLDER.")
    if folder.is_dir() and any(folder.iterdir()) and read_record(folder) is None:
        raise ConfigError("--out", f"{folder} holds files that no export made.", "Name a new folder: --out FOLDER.")


@contextmanager
def writing(folder: Path, record: dict[str, Any]) -> Iterator[Path]:
    """Give a folder to write an export into; when the block ends, it becomes `folder`.

    Args:
        folder: where the export is to be.
        record: what it says of itself, read when the block ends: the block may add to it.

    Raises:
        ConfigError: `folder` holds something else than an export.
        CheckpointError: it cannot be written. What was there before still is.
    """
    refuse_to_overwrite(folder)
    beside, aside = (folder.with_name(f".{folder.name}.{end}") for end in ("writing", "old"))
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        values = {"format": FORMAT, "version": VERSION, **record, "files": checkpoint.checksums(beside)}
        checkpoint.save_json(beside / RECORD, values)
        checkpoint.flush(beside)
        _rename(beside, folder, aside=aside)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def cannot_write(folder: Path, error: OSError) -> CheckpointError:
    """What to say of a folder that cannot be written."""
    remedies = {
        errno.ENOSPC: "Free some disk, or name a folder on another one: --out FOLDER.",
        errno.EDQUOT: "Free some disk, or name a folder on another one: --out FOLDER.",
    }
    remedy = remedies.get(error.errno or 0, "Name a folder that you may write to: --out FOLDER.")
    return CheckpointError(str(folder), f"the export cannot be written ({error.strerror or error}).", remedy)


def _rename(beside: Path, folder: Path, *, aside: Path) -> None:
    replaced = folder.exists()
    if replaced:
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    try:
        beside.rename(folder)
    except OSError:
        if replaced:
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
