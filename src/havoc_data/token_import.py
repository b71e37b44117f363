"""Files of another stack -> store."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles
from havoc_core.tokenizer import Tokenizer
from havoc_data.document import GROUPS, MIN_HELD_OUT_BYTES, Rejected
from havoc_data.names import is_file_name
from havoc_data.shard_writer import ShardWriter
from havoc_data.store import (
    VERSION,
    SourceRecord,
    TokenStore,
    write_manifest,
    written_whole,
)
from havoc_data.token_format import Interchange, Vocabulary


@dataclass(frozen=True)
class TokenImport:
    """What is imported, and as what."""

    path: Path
    """One file of tokens, or a folder of them; they are joined in the order of their names."""
    interchange: Interchange
    """The format."""
    name: str
    """Of the source that they become."""
    group: str
    """Of that source."""
    licence: str | None = None
    """SPDX name, where known."""
    as_is: bool = False
    """Documents stay as they are; otherwise each begins and ends with the tokenizer's own tokens, added where missing."""
    drop_empty: bool = False
    """Documents without text are left out and counted; otherwise one of them stops the import."""
    validation_fraction: float = 0.02
    """Share of the documents held out, chosen by the hash of their tokens."""


@dataclass(frozen=True)
class _Incoming:
    """A document on its way into a store."""

    ids: np.ndarray
    """uint32 [tokens], complete."""
    origin: str
    ordinal: int
    start: int
    end: int
    identity: bytes
    """BLAKE2b-128 of the ids."""
    text_bytes: int


def import_tokens(order: TokenImport, tokenizer: Tokenizer, *, files: RunFiles) -> TokenStore:
    """Make the store and the tokenizer of a run from files of another stack; the run then trains with `rebuild: never`.

    The files are read twice: to choose what is held out, and to write.

    Raises:
        DataError: the files are damaged or hold ids that the tokenizer does not know, there is too little of them, or
            the run has a store or another tokenizer already.
    """
    _check_places(order, tokenizer, files)
    survey = _survey(order, tokenizer)
    dtype = Vocabulary(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, "").dtype
    with written_whole(files.store) as beside:
        digest = hashlib.blake2b(digest_size=16)
        with _ImportWriter(beside, order, tokenizer, dtype) as writer:
            for item in _documents(order, tokenizer):
                if isinstance(item, Rejected):
                    continue
                digest.update(item.identity)
                writer.add(item, held_out=survey.is_held_out(item.identity))
        if digest.digest() != survey.digest:
            raise DataError(str(order.path), "changed while it was read.", "Import it again when nothing writes to it.")
        key = [VERSION, order.name, order.group, order.licence, order.validation_fraction, tokenizer.fingerprint()]
        content = json.dumps(["import", key, survey.digest.hex()])
        facts = {
            "dtype": dtype.name,
            "inputs_key": hashlib.blake2b(content.encode(), digest_size=16).hexdigest(),
            "tokenizer": tokenizer.fingerprint(),
            "ratios": {order.group: 1.0},
            "missing_groups": [group for group in GROUPS if group != order.group],
            "dummy": False,
        }
        writer.write_manifest(facts, empty=survey.empty)
        if not files.tokenizer.exists():
            with written_whole(files.tokenizer) as folder:
                tokenizer.save(folder)
    return TokenStore(files.store)


def _check_places(order: TokenImport, tokenizer: Tokenizer, files: RunFiles) -> None:
    if not is_file_name(order.name) or order.name.startswith(".") or order.name == "validation":
        raise DataError(
            "name", f"{order.name!r} cannot be the name of a folder in a store.", "Choose a plain word, such as web."
        )
    if files.store.exists():
        raise DataError(str(files.store), "is a token store already.", "Import into another run: --run-dir NEW.")
    if files.tokenizer.exists() and Tokenizer.load(files.tokenizer).fingerprint() != tokenizer.fingerprint():
        raise DataError(
            str(files.tokenizer),
            "is another tokenizer than that of the files.",
            "Import into another run: --run-dir NEW.",
        )


def _file_sets(order: TokenImport) -> list[tuple[str, Path]]:
    """(origin, file of the tokens) of every set, in the order of their names."""
    path, suffix = order.path, order.interchange.suffix
    if path.is_dir():
        found = sorted(each.name for each in path.iterdir() if each.name.endswith(suffix) and each.is_file())
        if not found:
            raise DataError(
                str(path),
                f"holds no file that ends in {suffix}.",
                "Name the folder that has them, or another --format.",
            )
        return [(name, path / name) for name in found]
    if not path.name.endswith(suffix):
        path = path.with_name(path.name + suffix)  # Megatron names a set by what its files have in common
    if not path.is_file():
        raise DataError(str(path), "there is no such file of tokens.", f"Name a file that ends in {suffix}.")
    return [(path.name, path)]


def _documents(order: TokenImport, tokenizer: Tokenizer) -> Iterator[_Incoming | Rejected]:
    """Every document, complete and checked; empty ones as rejected, if they may be left out."""
    vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, "")
    lengths = tokenizer.token_lengths()
    for origin, path in _file_sets(order):
        try:
            for number, found in enumerate(order.interchange.read(path, vocabulary)):
                ids = _checked(found.ids, vocabulary, f"{path}: document {number:,}")
                if _is_empty(ids, vocabulary):
                    if not order.drop_empty:
                        raise DataError(
                            str(path),
                            f"document {number:,}, at byte {found.start:,}, has no text.",
                            "Leave such documents out: --drop-empty.",
                        )
                    yield Rejected(origin, "has no text", found.end - found.start, found.start)
                    continue
                ids = ids if order.as_is else _with_ends(ids, vocabulary)
                identity = hashlib.blake2b(ids.astype("<u4", copy=False).tobytes(), digest_size=16).digest()
                size = int(lengths[ids].sum())
                yield _Incoming(ids, origin, number, found.start, found.end, identity, size)
        except OSError as error:
            raise DataError(
                str(path), f"cannot be read ({error.strerror or error}).", "Check its permissions."
            ) from None


def _checked(ids: np.ndarray, vocabulary: Vocabulary, where: str) -> np.ndarray:
    """The ids as uint32."""
    if len(ids):
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= vocabulary.size:
            raise DataError(
                where,
                f"holds id {low if low < 0 else high:,}, and the tokenizer has ids from 0 to {vocabulary.size - 1:,}.",
                "Name the tokenizer that wrote it: --tokenizer; or the dtype is another: --format-options.",
            )
    return ids.astype(np.uint32)


def _is_empty(ids: np.ndarray, vocabulary: Vocabulary) -> bool:
    if len(ids) and ids[0] == vocabulary.bos_id:
        ids = ids[1:]
    if len(ids) and ids[-1] == vocabulary.eos_id:
        ids = ids[:-1]
    return len(ids) == 0


def _with_ends(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    begin = [] if ids[0] == vocabulary.bos_id else [vocabulary.bos_id]
    end = [] if ids[-1] == vocabulary.eos_id else [vocabulary.eos_id]
    return np.concatenate([np.array(begin, np.uint32), ids, np.array(end, np.uint32)]) if begin or end else ids


@dataclass(frozen=True)
class _Survey:
    """What the first reading found."""

    digest: bytes
    """Of all documents, in order."""
    empty: int
    """Documents that are left out."""
    below: int
    """Documents whose hash is below it are held out …"""
    up_to: int
    """… and those up to this one, so that 32 KiB are."""

    def is_held_out(self, identity: bytes) -> bool:
        """Whether a document is for validation."""
        number = int.from_bytes(identity)
        return number < self.below or number <= self.up_to


def _survey(order: TokenImport, tokenizer: Tokenizer) -> _Survey:
    below = int(order.validation_fraction * 2**128)
    first = _FirstByHash(MIN_HELD_OUT_BYTES)
    digest = hashlib.blake2b(digest_size=16)
    documents = empty = total = taken = 0
    for item in _documents(order, tokenizer):
        if isinstance(item, Rejected):
            empty += 1
            continue
        documents += 1
        total += item.text_bytes
        digest.update(item.identity)
        number = int.from_bytes(item.identity)
        first.add(number, item.text_bytes)
        taken += item.text_bytes if number < below else 0
    taken = max(taken, first.size)
    if taken < MIN_HELD_OUT_BYTES or 2 * taken > total:
        raise DataError(
            f"group {order.group}",
            f"{total:,} bytes of text in {documents:,} documents: {MIN_HELD_OUT_BYTES:,} of them cannot be held out, "
            "with as much left to learn from.",
            "Import more files at once: name their folder.",
        )
    return _Survey(digest.digest(), empty, below, first.largest)


@dataclass
class _FirstByHash:
    """The documents with the smallest hashes, as few as hold `enough` bytes; memory does not grow with the others."""

    enough: int
    size: int = 0
    _sizes: dict[int, int] = field(default_factory=dict)
    _heap: list[int] = field(default_factory=list)

    def add(self, number: int, size: int) -> None:
        """One document; equal ones count as one of their common size."""
        if number not in self._sizes:
            heapq.heappush(self._heap, -number)
        self._sizes[number] = self._sizes.get(number, 0) + size
        self.size += size
        while self.size - self._sizes[-self._heap[0]] >= self.enough:
            self.size -= self._sizes.pop(-heapq.heappop(self._heap))

    @property
    def largest(self) -> int:
        """The largest hash among them; -1 if there is none."""
        return -self._heap[0] if self._heap else -1


class _ImportWriter:
    """Sorts documents into the source and the held-out group."""

    def __init__(self, folder: Path, order: TokenImport, tokenizer: Tokenizer, dtype: np.dtype[Any]) -> None:
        self._folder, self._order, self._tokenizer = folder, order, tokenizer
        self._training = ShardWriter(folder / order.name, dtype=dtype)
        self._validation = ShardWriter(folder / "validation" / order.group, dtype=dtype)
        self._counts = {False: [0, 0, 0], True: [0, 0, 0]}  # documents, tokens, bytes; of training and held out
        self._texts = zstandard.ZstdCompressor(level=3).compressobj()
        self._file = (folder / "validation" / f"{order.group}.jsonl.zst").open("wb")

    def __enter__(self) -> _ImportWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Finish all files, whether the import failed or not."""
        self._file.write(self._texts.flush())
        self._file.close()
        self._training.seal()
        self._validation.seal()

    def add(self, item: _Incoming, *, held_out: bool) -> None:
        """File one document."""
        line = {"id": item.identity.hex(), "source": self._order.name}
        place = {"origin": item.origin, "ordinal": item.ordinal, "bytes": [item.start, item.end]}
        provenance = {**line, **place, "licence": self._order.licence}
        (self._validation if held_out else self._training).add(item.ids, provenance)
        counts = self._counts[held_out]
        for at, more in enumerate((1, len(item.ids), item.text_bytes)):
            counts[at] += more
        if held_out:
            text = self._tokenizer.decode(item.ids.tolist())
            packed = self._texts.compress(json.dumps({**line, "text": text}, ensure_ascii=False).encode() + b"\n")
            self._file.write(packed)

    def write_manifest(self, facts: dict[str, Any], *, empty: int) -> None:
        """The last file of the store."""
        ledger = {"kept": self._counts[False][0], "held_out": self._counts[True][0], "duplicates": 0, "rejected": empty}
        records = []
        for held_out, writer in ((False, self._training), (True, self._validation)):
            documents, tokens, size = self._counts[held_out]
            records.append(
                SourceRecord(
                    group=self._order.group,
                    tokens=tokens,
                    documents=documents,
                    bytes=size,
                    licences={self._order.licence or "unknown": documents},
                    ledger={} if held_out else ledger,
                    shards=writer.shards,
                )
            )
        training, validation = {self._order.name: records[0]}, {self._order.group: records[1]}
        write_manifest(self._folder, sources=training, validation=validation, facts=facts)
