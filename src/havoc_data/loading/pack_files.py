"""Pack plans on disk: worked out once for a store, then memory-mapped, so that a start takes no longer for a larger corpus.

    <folder>/<key>/{row_starts,first_token,num_pairs,labels,by_labels}.npy, checksums.json

The key is a hash of the source's shards, the length of rows, the way of packing and the boundaries of the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from havoc_core.log import LOGGER
from havoc_data.loading.packing import PackPlan

VERSION = 1
_ARRAYS = ("row_starts", "first_token", "num_pairs", "labels", "by_labels")


def pack_key(checksums: list[str], *, row_length: int, packing: str, levels: np.ndarray) -> str:
    """Hash of everything that a plan depends on."""
    inputs = json.dumps([VERSION, checksums, row_length, packing]).encode()
    return hashlib.blake2b(inputs + levels.tobytes(), digest_size=16).hexdigest()


def kept_plan(folder: Path, key: str, make: Callable[[], PackPlan]) -> PackPlan:
    """The plan of that key, from disk if it is there and whole, else made and put there.

    Args:
        folder: of all plans. Where it cannot be written, the plan stays in memory.
        key: of the plan.
        make: works it out.
    """
    plan = _opened(folder / key)
    if plan is not None:
        return plan
    plan = make()
    try:
        _write(plan, folder, key)
    except OSError as error:
        LOGGER.info("The pack plan is not kept: %s cannot be written (%s).", folder, error.strerror)
        return plan
    return _opened(folder / key) or plan


def _opened(folder: Path) -> PackPlan | None:
    try:
        facts = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
        for name in _ARRAYS:
            with (folder / f"{name}.npy").open("rb") as file:
                # A flipped bit would be another order of the text, and nobody would notice.
                if hashlib.file_digest(file, "sha256").hexdigest() != facts[name]:
                    return None
        # As plain arrays: slices of numpy's memmap class are several times slower.
        arrays = {name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in _ARRAYS}
        return PackPlan(**arrays, num_labels=int(arrays["labels"].sum(dtype=np.int64)))
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged: it is made again
        return None


def _write(plan: PackPlan, folder: Path, key: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: several ranks may work out the same plan at once.
    beside = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=folder))
    beside.chmod(0o755)  # whoever may read the store may read its plans
    try:
        facts: dict[str, str] = {}
        for name in _ARRAYS:
            np.save(beside / f"{name}.npy", getattr(plan, name))
            with (beside / f"{name}.npy").open("rb") as file:
                facts[name] = hashlib.file_digest(file, "sha256").hexdigest()
        (beside / "checksums.json").write_text(json.dumps(facts), encoding="utf-8")
        if (folder / key).exists():
            shutil.rmtree(folder / key)
        beside.replace(folder / key)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
