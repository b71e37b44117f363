"""Stores made of numbers: no tokenizer, no text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from havoc_data.loading.loader import Loader, MixturePlan
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import SourceRecord, TokenStore, write_manifest

RATIOS = {"domain": 0.6, "general": 0.3, "dialog": 0.1}
# Documents and their lengths in tokens: (name, group, documents, shortest, longest).
SOURCES = (("math", "domain", 220, 5, 300), ("stats", "domain", 60, 40, 90), ("general", "general", 150, 10, 120),
           ("dialog", "dialog", 120, 20, 60))  # fmt: skip


def write_source(folder: Path, group: str, lengths: np.ndarray, draw: np.random.Generator) -> SourceRecord:
    """Documents 0 x x x 1 of these lengths."""
    writer = ShardWriter(folder, dtype=np.dtype("uint16"), shard_bytes=4096)
    for number, length in enumerate(lengths.tolist()):
        ids = np.concatenate([[0], draw.integers(10, 200, length - 2), [1]])
        writer.add(ids, {"origin": f"{folder.name}/{number}", "ordinal": number})
    writer.seal()
    return SourceRecord(group, int(lengths.sum()), len(lengths), int(lengths.sum()), shards=writer.shards)


@pytest.fixture(scope="session")
def make_store() -> Callable[..., TokenStore]:
    """A store of these (name, group, documents, shortest, longest)."""

    def make(folder: Path, sources=SOURCES, seed: int = 0) -> TokenStore:
        draw = np.random.default_rng(seed)
        training = {
            name: write_source(folder / name, group, draw.integers(low, high + 1, count), draw)
            for name, group, count, low, high in sources
        }
        validation = {
            group: write_source(folder / "validation" / group, group, draw.integers(10, 100, 30), draw)
            for group in dict.fromkeys(group for _, group, *_ in sources)
        }
        facts = {"dtype": "uint16", "ratios": RATIOS, "dummy": True, "missing_groups": [], "inputs_key": str(seed)}
        write_manifest(folder, sources=training, validation=validation, facts=facts)
        return TokenStore(folder)

    return make


@pytest.fixture(scope="session")
def store(make_store, tmp_path_factory) -> TokenStore:
    """The store that most tests share."""
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def load() -> Callable[..., Loader]:
    """A loader with everything but the store defaulted."""

    def make(store: TokenStore, *, packing="best_fit", row_length=64, seed=42, weights=None, ratios=None) -> Loader:
        plan = MixturePlan(ratios or RATIOS, weights or {}, row_length, packing)
        return Loader(store, plan, seed=seed, token_bytes=[b"x"] * 256, pad_id=2)

    return make
