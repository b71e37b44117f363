"""Corpus + tokenizer -> token store, part by part.

    .store.parts/<key>/training/…     the tokens of a part, as shards
    .store.parts/<key>/validation/…   its held-out documents
    .store.parts/<key>/validation.jsonl.zst   their texts
    .store.parts/<key>/facts.json     counts
    .store.parts/<key>/seal.json      checksums of these

Each part is a pure function of the part, its decisions and the tokenizer. The store is then put together from the parts in
their order, file by file: the same store, whoever worked on which part.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from havoc_core.chat_format import render
from havoc_core.config import DataMixtureConfig
from havoc_core.tokenizer import Tokenizer
from havoc_data.document import Document, document_text
from havoc_data.prepare.corpus import Corpus
from havoc_data.prepare.ledger import FATES
from havoc_data.prepare.seal import is_sealed, seal
from havoc_data.prepare.settle import CorpusShard
from havoc_data.runner import run_each, runner_of
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import VERSION, SourceRecord, TokenStore, write_manifest, written_whole

_BATCH_BYTES = 2**20
_COPY_BYTES = 2**20


@dataclass(frozen=True)
class TokenizeTask:
    """One part to tokenize."""

    source: str
    """Name of the source."""
    shard: CorpusShard
    tokenizer: Path
    """Where the tokenizer was saved; every process loads it once."""
    fingerprint: str
    """Of the tokenizer."""
    folder: Path
    """Of all parts."""

    @property
    def key(self) -> str:
        """Name of the folder that it is written to."""
        text = f"{VERSION} {self.source} {self.shard.part.name} {self.shard.settled.name} {self.fingerprint}"
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def store_key(corpus_key: str, tokenizer: Tokenizer) -> str:
    """Hash of everything that the store depends on."""
    inputs = [VERSION, corpus_key, tokenizer.fingerprint()]
    return hashlib.blake2b(json.dumps(inputs).encode(), digest_size=16).hexdigest()


def build_store(corpus: Corpus, tokenizer_folder: Path, *, folder: Path, data: DataMixtureConfig) -> TokenStore:
    """The token store of a corpus; built again only if the text or the tokenizer has changed.

    Args:
        corpus: collected text.
        tokenizer_folder: where the tokenizer was saved.
        folder: of the store.
        data: which runner works on the parts, and with how many processes.
    """
    tokenizer = Tokenizer.load(tokenizer_folder)
    key = store_key(corpus.key, tokenizer)
    if is_current(folder, key):
        return TokenStore(folder)
    runner = runner_of(data)
    parts = folder.with_name(f".{folder.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    fingerprint = tokenizer.fingerprint()
    tasks = [
        TokenizeTask(source, shard, tokenizer_folder, fingerprint, parts)
        for source in corpus.groups
        for shard in corpus.shards(source)
    ]
    done = run_each(runner, tokenize, tasks)
    dtype = _dtype(tokenizer)
    with written_whole(folder) as beside:
        store = _Assembly(beside, corpus, dtype)
        for task, name in zip(tasks, done, strict=True):
            store.append(task.source, parts / name)
        store.finish(
            {
                "dtype": dtype.name,
                "inputs_key": key,
                "tokenizer": fingerprint,
                "ratios": corpus.ratios,
                "missing_groups": list(corpus.missing_groups),
                "dummy": corpus.dummy,
            }
        )
    shutil.rmtree(parts, ignore_errors=True)
    return TokenStore(folder)


def is_current(folder: Path, key: str) -> bool:
    """Whether a store was built from what `key` stands for."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("inputs_key") == key


def tokenize(task: TokenizeTask) -> str:
    """Tokenize a part; one that was tokenized before, and is not damaged, is left as it is.

    Returns:
        The name of its folder.
    """
    key = task.key
    if not is_sealed(task.folder / key):
        with written_whole(task.folder / key) as beside:
            _write(task, beside)
    return key


def _write(task: TokenizeTask, folder: Path) -> None:
    tokenizer = _tokenizer(task.tokenizer, task.fingerprint)
    facts: dict[str, Any] = {}
    texts: list[bytes] = []
    for split, held_out in (("training", False), ("validation", True)):
        writer = ShardWriter(folder / split, dtype=_dtype(tokenizer))
        counts: Counter[str] = Counter()
        licences: Counter[str] = Counter()
        for batch in _batches(task.shard.documents(held_out=held_out)):
            for (identity, document), ids in zip(batch, _encode(tokenizer, batch), strict=True):
                writer.add(ids, _provenance(task.source, identity, document))
                counts.update(tokens=len(ids), documents=1, bytes=len(document_text(document).encode()))
                licences[document.licence or "unknown"] += 1
                if held_out:
                    texts.append(_text_line(task.source, identity, document))
        writer.seal()
        facts[split] = {"counts": dict(counts), "licences": dict(licences), "shards": writer.shards}
    packed = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"".join(texts))
    (folder / "validation.jsonl.zst").write_bytes(packed)
    (folder / "facts.json").write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
    seal(folder)


def _provenance(source: str, identity: str, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": identity,
        "source": source,
        "origin": document.origin,
        "ordinal": document.ordinal,
        "bytes": [document.start, document.end],
        "licence": document.licence,
    }
    if document.includes:
        values["includes"] = [[span.origin, span.start, span.end] for span in document.includes]
    return values


def _text_line(source: str, identity: str, document: Document) -> bytes:
    content = {"messages": document.messages} if document.messages else {"text": document.text}
    return json.dumps({"id": identity, "source": source, **content}, ensure_ascii=False).encode() + b"\n"


def _batches(documents: Iterator[tuple[str, Document]]) -> Iterator[list[tuple[str, Document]]]:
    batch: list[tuple[str, Document]] = []
    size = 0
    for identity, document in documents:
        batch.append((identity, document))
        size += len(document_text(document))
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encode(tokenizer: Tokenizer, batch: list[tuple[str, Document]]) -> list[np.ndarray]:
    """BOS text EOS of each document, uint32; dialogs in the chat format."""
    plain = iter(tokenizer.encode_arrays([document.text for _, document in batch if not document.messages]))
    bos, eos = (np.array([one], dtype=np.uint32) for one in (tokenizer.bos_id, tokenizer.eos_id))
    return [
        np.array(render(tokenizer, document.messages).ids, dtype=np.uint32)
        if document.messages
        else np.concatenate([bos, next(plain), eos])
        for _, document in batch
    ]


@lru_cache(maxsize=1)
def _tokenizer(folder: Path, fingerprint: str) -> Tokenizer:
    """One tokenizer a process; the fingerprint tells one from its successor in the same folder."""
    return Tokenizer.load(folder)


def _dtype(tokenizer: Tokenizer) -> np.dtype[Any]:
    return np.dtype("uint16" if tokenizer.vocab_size <= 65_536 else "uint32")


class _Assembly:
    """Puts the parts together: training shards by source, held-out shards and texts by group."""

    def __init__(self, folder: Path, corpus: Corpus, dtype: np.dtype[Any]) -> None:
        self._folder, self._corpus, self._dtype = folder, corpus, dtype
        self._writers: dict[tuple[str, str], ShardWriter] = {}
        self._counts: dict[tuple[str, str], Counter[str]] = {}
        self._licences: dict[tuple[str, str], Counter[str]] = {}

    def append(self, source: str, part: Path) -> None:
        """All documents of a part."""
        group = self._corpus.groups[source]
        facts = json.loads((part / "facts.json").read_text(encoding="utf-8"))
        for split, name in (("training", source), ("validation", group)):
            if not facts[split]["shards"]:
                continue
            place = (split, name)
            if place not in self._writers:
                folder = self._folder / "validation" / name if split == "validation" else self._folder / name
                self._writers[place] = ShardWriter(folder, dtype=self._dtype)
                self._counts[place], self._licences[place] = Counter(), Counter()
            self._writers[place].append(part / split, facts[split]["shards"])
            self._counts[place].update(facts[split]["counts"])
            self._licences[place].update(facts[split]["licences"])
        if facts["validation"]["shards"]:
            with (
                (part / "validation.jsonl.zst").open("rb") as texts,
                (self._folder / "validation" / f"{group}.jsonl.zst").open("ab") as out,
            ):
                shutil.copyfileobj(texts, out, _COPY_BYTES)

    def finish(self, facts: dict[str, Any]) -> None:
        """Seal the shards and write the manifest."""
        ledgers = {ledger.name: ledger for ledger in self._corpus.ledgers}
        records: dict[str, dict[str, SourceRecord]] = {"training": {}, "validation": {}}
        for place, writer in self._writers.items():
            writer.seal()
            split, name = place
            records[split][name] = SourceRecord(
                group=self._corpus.groups[name] if split == "training" else name,
                **self._counts[place],
                licences=dict(sorted(self._licences[place].items())),
                ledger=_documents_by_fate(ledgers[name].sums.documents) if split == "training" else {},
                shards=writer.shards,
            )
        write_manifest(self._folder, sources=records["training"], validation=records["validation"], facts=facts)


def _documents_by_fate(documents: dict[str, int]) -> dict[str, int]:
    """What became of the documents, every rule of rejection under one name."""
    rejected = sum(count for fate, count in documents.items() if fate not in FATES)
    known = {fate: documents.get(fate, 0) for fate in FATES}
    return {**known, "rejected": rejected}
