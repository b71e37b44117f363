"""The graph of `havoc run`: data -> tokenizer -> store -> train -> evaluate -> report.

Each stage is keyed by a hash of its inputs. What a key stands for is done once: a run that is killed anywhere goes on
when it is called again, and a call after that redoes nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from havoc_core.log import LOGGER


def key_of(*inputs: object) -> str:
    """Hash of a stage's inputs, which must be plain values."""
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


@dataclass
class StageLog:
    """stages.json: which stage is done for which inputs, and how long it took, interrupted attempts included."""

    path: Path
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> StageLog:
        """The log as it stands; a damaged one counts as empty, since every stage can find out for itself."""
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls(path)
        whole = isinstance(entries, dict) and all(isinstance(e, dict) and "seconds" in e for e in entries.values())
        return cls(path, entries) if whole else cls(path)

    def do(self, name: str, key: str, work: Callable[[], None], *, is_there: bool = True) -> bool:
        """Run a stage unless it is done for this key and what it made is there.

        Returns:
            Whether it ran.
        """
        entry = self.entries.get(name, {})
        if entry.get("key") == key and entry.get("finished") and is_there:
            LOGGER.info("%-10s done before", name)
            return False
        LOGGER.info("%-10s …", name)
        spent = float(entry.get("seconds", 0.0)) if entry.get("key") == key else 0.0
        began = time.perf_counter()
        # A clock that was begun is written down now, so that a killed attempt shows that there was one.
        self._write(name, {"key": key, "seconds": spent, "finished": None})
        try:
            work()
        finally:
            self._write(name, {"key": key, "seconds": spent + time.perf_counter() - began, "finished": None})
        self._write(name, {**self.entries[name], "finished": datetime.now(UTC).isoformat(timespec="seconds")})
        LOGGER.info("%-10s done in %.1f s", name, time.perf_counter() - began)
        return True

    def seconds(self) -> dict[str, float]:
        """Stage -> seconds spent on it."""
        return {name: float(entry["seconds"]) for name, entry in self.entries.items()}

    def _write(self, name: str, entry: dict[str, Any]) -> None:
        self.entries[name] = entry
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_name(f".{self.path.name}.writing")
        beside.write_text(json.dumps(self.entries, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        beside.replace(self.path)
