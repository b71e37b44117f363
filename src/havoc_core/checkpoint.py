"""The checkpoint format on disk.

    checkpoint_step_N/   model.pt optimizer.pt scheduler.pt scaler.pt (if used) random_states.pt
                         training_state.json config.json tokenizer/ manifest.json (sizes, SHA-256)

A folder appears under its name only when it is whole: written beside, flushed, renamed. A folder is a checkpoint if
its manifest.json says so. Loading runs no code from a file and follows no link out of the folder.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from havoc_core import tensor_file
from havoc_core.config_files import CONFIG_VERSION
from havoc_core.errors import CheckpointError

FORMAT = "havoc-checkpoint"
VERSION = 1
_REQUIRED = ("config.json", "model.pt", "training_state.json")
_STEP_NAME = re.compile(r"checkpoint_step_(\d+)")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself."""

    version: int
    config_version: int
    files: dict[str, tuple[int, str]]
    """Relative path -> (bytes, SHA-256)."""


@contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Give a folder to write a checkpoint's files into; when the block ends, it becomes `folder`.

    An existing checkpoint of the same name is replaced, never half overwritten: the old one is put aside as
    `<name>.old`, which readers accept, until the new one has its name.

    Raises:
        CheckpointError: it cannot be written (full disk, missing permission). What was there before still is.
    """
    beside = folder.with_name(f".{folder.name}.writing")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        yield beside
        _write_manifest(beside)
        flush(beside)
        _rename(beside, folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError | RuntimeError):
            raise _cannot_write(folder, error) from error
        raise


def save_tensors(path: Path, values: Any) -> None:
    """torch.save; tensors that are views are cloned first, or the whole storage behind them would be written.

    Wherever a TensorSource stands in nested dicts, lists and tuples, its tensor is made, written and forgotten before
    the next one (`tensor_file.write`); every tensor in that file then gets a storage of its own.
    """
    if tensor_file.has_sources(values):
        tensor_file.write(path, values)
        return
    with path.open("wb") as file:
        torch.save(values, file)


def save_json(path: Path, values: Any) -> None:
    """Indented JSON with sorted keys."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_tensors(folder: Path, name: str) -> Any:
    """A file that `save_tensors` wrote, on the CPU, memory-mapped; runs no code from it.

    A tensor is read when its values are, and the system may take the memory back; what is written into one goes into
    a copy of the page and never to the file. The system reserves as much memory as the file is long, unless it is told
    to overcommit: a file longer than all memory and swap cannot be mapped.

    Raises:
        CheckpointError: it is missing, damaged, or holds more than tensors and plain values.
    """
    path = resolve(folder) / name
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise CheckpointError(str(path), "is missing.", "Use another checkpoint: havoc checkpoint list.") from None
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "Use another checkpoint: havoc checkpoint list."
        if os.strerror(errno.ENOMEM) in first_line:
            remedy = "The system reserves memory for all of it: add swap, or set vm.overcommit_memory to 1."
        raise CheckpointError(str(path), f"cannot be read ({first_line}).", remedy) from None


def load_json(folder: Path, name: str) -> Any:
    """A JSON file of a checkpoint.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = resolve(folder) / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            str(path), f"cannot be read ({error}).", "Use another checkpoint: havoc checkpoint list."
        ) from None


def resolve(folder: Path) -> Path:
    """The folder itself, or `<name>.old` if a replacement was cut off between two renames."""
    if not folder.name:  # the current folder, or the root
        return folder
    aside = folder.with_name(folder.name + ".old")
    return aside if not folder.exists() and aside.exists() else folder


def read_manifest(folder: Path) -> Manifest:
    """What the checkpoint says of itself.

    Raises:
        CheckpointError: it is no checkpoint, or of a version that this HAVOC does not read.
    """
    path = resolve(folder) / "manifest.json"
    if not path.is_file():
        what = "there is no such folder" if not resolve(folder).exists() else "is no checkpoint (no manifest.json)"
        raise CheckpointError(str(folder), f"{what}.", "`havoc checkpoint list` shows what there is.")
    values = load_json(folder, "manifest.json")
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise CheckpointError(str(folder), "is no checkpoint of HAVOC.", "`havoc checkpoint list` shows what there is.")
    if values.get("version") != VERSION or values.get("config_version") != CONFIG_VERSION:
        raise CheckpointError(
            str(folder),
            f"has format version {values.get('version')}, config version {values.get('config_version')}; "
            f"this HAVOC reads {VERSION} and {CONFIG_VERSION}.",
            "Use the HAVOC that wrote it.",
        )
    try:
        files = {name: (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
    except (KeyError, AttributeError, TypeError, ValueError):
        raise CheckpointError(
            str(path), "its list of files is damaged.", "Use another checkpoint: havoc checkpoint list."
        ) from None
    return Manifest(VERSION, CONFIG_VERSION, files)


def verify(folder: Path, *, settled_s: float = 2.0) -> Manifest:
    """Compare every file with the manifest's sizes and checksums.

    A file that this process has read already is not read again while size, place and times of change are the same.

    Args:
        folder: of the checkpoint.
        settled_s: files changed less than this many seconds ago are always read. The times of a file system go in
            ticks, of up to two seconds on some, and a second change within one tick would pass unseen.

    Raises:
        CheckpointError: names the first file that is missing, a link, not in the manifest, of another size, or changed.
    """
    manifest = read_manifest(folder)
    inside = resolve(folder)
    remedy = "It is damaged; use another checkpoint: havoc checkpoint list."
    there = {path.relative_to(inside).as_posix(): path for path in sorted(inside.rglob("*"))}
    for name, path in there.items():
        if path.is_symlink():
            raise CheckpointError(str(path), "is a link, and a checkpoint follows none.", remedy)
        # What nobody vouches for must not be read: a scaler.pt, say, is used wherever there is one.
        if not path.is_dir() and name not in manifest.files and name != "manifest.json":
            raise CheckpointError(str(path), "is not in the manifest, so nothing vouches for it.", remedy)
    for name in _REQUIRED:
        if name not in manifest.files:
            raise CheckpointError(str(inside / name), "belongs to every checkpoint, and the manifest lacks it.", remedy)
    for name, (size, digest) in sorted(manifest.files.items()):
        path = inside / name
        if name not in there or not path.is_file():  # a name that leads out of the folder is not there either
            raise CheckpointError(str(path), "is missing.", remedy)
        if path.stat().st_size != size:
            raise CheckpointError(str(path), f"{path.stat().st_size:,} bytes, the manifest says {size:,}.", remedy)
        if _sha256_once(path, settled_s) != digest:
            raise CheckpointError(str(path), "its checksum is not the manifest's.", remedy)
    return manifest


def step_of(folder: Path) -> int | None:
    """N of checkpoint_step_N; None for other names."""
    match = _STEP_NAME.fullmatch(folder.name.removesuffix(".old"))
    return int(match[1]) if match else None


def step_checkpoints(folder: Path) -> list[Path]:
    """Folders named checkpoint_step_N, oldest first; not verified."""
    if not folder.is_dir():
        return []
    found = {
        resolve(path.with_name(path.name.removesuffix(".old")))
        for path in folder.iterdir()
        if step_of(path) is not None
    }
    return sorted((path for path in found if path.is_dir()), key=lambda path: step_of(path) or 0)


def checksums(folder: Path) -> dict[str, tuple[int, str]]:
    """Relative path -> (bytes, SHA-256) of every file in a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, _sha256(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def flush(folder: Path) -> None:
    """Have a folder and all that is in it on the disk, and not only on its way there."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _write_manifest(folder: Path) -> None:
    values = {"format": FORMAT, "version": VERSION, "config_version": CONFIG_VERSION, "files": checksums(folder)}
    save_json(folder / "manifest.json", values)


def _rename(beside: Path, folder: Path) -> None:
    aside = folder.with_name(folder.name + ".old")
    if folder.exists():
        shutil.rmtree(aside, ignore_errors=True)
        folder.rename(aside)
    beside.rename(folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sha256_once(path: Path, settled_s: float) -> str:
    found = path.stat()
    if time.time() - max(found.st_mtime, found.st_ctime) < settled_s:
        return _sha256(path)
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return _remembered_sha256(path.absolute(), identity)


@functools.lru_cache(maxsize=1024)
def _remembered_sha256(path: Path, identity: tuple[int, ...]) -> str:
    """The checksum of a file as `identity` found it; another identity is another question."""
    return _sha256(path)


def _cannot_write(folder: Path, error: Exception) -> CheckpointError:
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else (str(error).splitlines() or [type(error).__name__])[0]
    remedies = {
        errno.ENOSPC: "Free some disk, or lower `keep_last_n_checkpoints`.",
        errno.EACCES: "Choose a folder that you may write to: `checkpoint_dir`.",
        errno.EROFS: "Choose a folder that you may write to: `checkpoint_dir`.",
    }
    remedy = remedies.get(number or 0, "Check the disk and the permissions of `checkpoint_dir`.")
    return CheckpointError(
        str(folder), f"cannot be written ({reason}).", remedy + " Earlier checkpoints are untouched."
    )
