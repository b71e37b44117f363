"""Corpus -> token store, by parallel processes with the same result for any number of them."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from havoc_core.chat_format import render
from havoc_core.tokenizer import Tokenizer
from havoc_data.document import Document
from havoc_data.prepare.collect import Corpus, document_text
from havoc_data.store import VERSION, ShardWriter, SourceRecord, TokenStore, write_manifest, written_whole

_BATCH_BYTES = 1_000_000
_worker_tokenizer: Tokenizer | None = None  # one per process: it cannot be sent along with every batch


def store_key(corpus_key: str, tokenizer: Tokenizer) -> str:
    """Hash of everything that the store depends on."""
    inputs = [VERSION, corpus_key, tokenizer.fingerprint()]
    return hashlib.blake2b(json.dumps(inputs).encode(), digest_size=16).hexdigest()


def build_store(corpus: Corpus, tokenizer_folder: Path, *, folder: Path, num_workers: int | None = None) -> TokenStore:
    """The token store of a corpus; built again only if the text or the tokenizer has changed.

    Args:
        corpus: collected text.
        tokenizer_folder: where the tokenizer was saved; every process loads it.
        folder: of the store.
        num_workers: processes; None: one per core.
    """
    tokenizer = Tokenizer.load(tokenizer_folder)
    key = store_key(corpus.key, tokenizer)
    if is_current(folder, key):
        return TokenStore(folder)
    dtype = np.dtype("uint16" if tokenizer.vocab_size <= 65_536 else "uint32")
    with written_whole(folder) as beside:
        writer = _StoreWriter(beside, corpus, dtype)
        for source in corpus.groups:
            for batch, ids in _encoded(_batches(corpus, source), tokenizer_folder, num_workers):
                for (identity, document), one in zip(batch, ids, strict=True):
                    writer.add(source, identity, document, one)
        writer.finish(
            {
                "dtype": dtype.name,
                "inputs_key": key,
                "tokenizer": tokenizer.fingerprint(),
                "ratios": corpus.ratios,
                "missing_groups": list(corpus.missing_groups),
                "dummy": corpus.dummy,
            }
        )
    return TokenStore(folder)


def is_current(folder: Path, key: str) -> bool:
    """Whether a store was built from what `key` stands for."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("inputs_key") == key


class _StoreWriter:
    """Sorts documents into training shards by source and held-out shards by group."""

    def __init__(self, folder: Path, corpus: Corpus, dtype: np.dtype[Any]) -> None:
        self._folder, self._corpus, self._dtype = folder, corpus, dtype
        self._shards: dict[tuple[str, str], ShardWriter] = {}
        self._facts: dict[tuple[str, str], dict[str, Any]] = {}
        self._texts: dict[str, list[bytes]] = {}

    def add(self, source: str, identity: str, document: Document, ids: np.ndarray) -> None:
        """File one document."""
        group = self._corpus.groups[source]
        held_out = self._corpus.is_held_out(source, identity)
        place = ("validation", group) if held_out else ("training", source)
        if place not in self._shards:
            folder = self._folder / "validation" / group if held_out else self._folder / source
            self._shards[place] = ShardWriter(folder, dtype=self._dtype)
            self._facts[place] = {"group": group, "tokens": 0, "documents": 0, "bytes": 0, "licences": {}}
        facts, licence = self._facts[place], document.licence or "unknown"
        facts["tokens"] += len(ids)
        facts["documents"] += 1
        facts["bytes"] += len(document_text(document).encode())
        facts["licences"][licence] = facts["licences"].get(licence, 0) + 1
        self._shards[place].add(
            ids,
            {
                "id": identity,
                "source": source,
                "origin": document.origin,
                "ordinal": document.ordinal,
                "bytes": [document.start, document.end],
                "licence": document.licence,
            },
        )
        if held_out:
            line = {"id": identity, "source": source}
            content = {"messages": document.messages} if document.messages else {"text": document.text}
            self._texts.setdefault(group, []).append(
                json.dumps({**line, **content}, ensure_ascii=False).encode() + b"\n"
            )

    def finish(self, facts: dict[str, Any]) -> None:
        """Seal the shards and write the held-out texts and the manifest."""
        for shard in self._shards.values():
            shard.seal()
        ledgers = {ledger.name: ledger for ledger in self._corpus.ledgers}
        records: dict[str, dict[str, SourceRecord]] = {"training": {}, "validation": {}}
        for (split, name), of_place in self._facts.items():
            counts = {}
            if split == "training":
                ledger = ledgers[name]
                held_out = ledger.kept - of_place["documents"]
                counts = {
                    "kept": of_place["documents"],
                    "held_out": held_out,
                    "duplicates": ledger.duplicates,
                    "rejected": ledger.rejected,
                }
            shards = self._shards[(split, name)].shards
            records[split][name] = SourceRecord(**of_place, ledger=counts, shards=shards)
        for group, lines in self._texts.items():
            packed = zstandard.ZstdCompressor(level=3).compress(b"".join(lines))
            (self._folder / "validation" / f"{group}.jsonl.zst").write_bytes(packed)
        write_manifest(self._folder, sources=records["training"], validation=records["validation"], facts=facts)


def _batches(corpus: Corpus, source: str) -> Iterator[list[tuple[str, Document]]]:
    batch: list[tuple[str, Document]] = []
    size = 0
    for identity, document in corpus.documents(source):
        batch.append((identity, document))
        size += len(document_text(document))
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(
    batches: Iterator[list[tuple[str, Document]]], tokenizer_folder: Path, num_workers: int | None
) -> Iterator[tuple[list[tuple[str, Document]], list[np.ndarray]]]:
    """Each batch with its ids, in order. At most two batches a process wait in memory."""
    workers = num_workers or os.cpu_count() or 1
    first = next(batches, None)
    second = next(batches, None)
    if first is None:
        return
    if second is None or workers == 1:
        _start_worker(tokenizer_folder)
        for batch in (first, *([second] if second else []), *batches):
            yield batch, _encode([document for _, document in batch])
        return
    # Spawned, not forked: a fork copies locks that the tokenizer's threads may hold.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(tokenizer_folder,)) as pool:
        waiting = [(batch, pool.submit(_encode, [d for _, d in batch])) for batch in (first, second)]
        for batch in batches:
            waiting.append((batch, pool.submit(_encode, [d for _, d in batch])))
            if len(waiting) > 2 * workers:
                done, future = waiting.pop(0)
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _start_worker(tokenizer_folder: Path) -> None:
    global _worker_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_tokenizer = Tokenizer.load(tokenizer_folder)


def _encode(documents: list[Document]) -> list[np.ndarray]:
    """BOS text EOS of each document; dialogs in the chat format."""
    tokenizer = _worker_tokenizer
    assert tokenizer is not None, "a worker was started"
    texts = iter(tokenizer.encode_batch([document.text for document in documents if not document.messages]))
    return [
        np.array(
            render(tokenizer, document.messages).ids
            if document.messages
            else [tokenizer.bos_id, *next(texts), tokenizer.eos_id],
            dtype=np.uint32,
        )
        for document in documents
    ]
