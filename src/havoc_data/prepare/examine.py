"""The first stage: one part of a source -> its documents, looked at one by one.

    parts/<key>/documents.jsonl.zst   one JSON line a document that no rule of its own threw out
    parts/<key>/ledger.jsonl.zst      one JSON line for every document and every reject, with the bytes it accounts for
    parts/<key>/*.npy                 what the comparison with all other documents needs
    parts/<key>/facts.json            counts for the data card

A pure function: the folder's name is a hash of the part, the settings and the version of this code, and a folder that is
there is finished. What concerns several documents (duplicates, the held-out ones) is decided afterwards, by `compare`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard

from havoc_core.config import CleaningConfig
from havoc_data.document import Document, Rejected, Span, document_text
from havoc_data.prepare.duplicates import paragraph_hashes
from havoc_data.prepare.exams import ExamIndex
from havoc_data.prepare.facts import Facts
from havoc_data.prepare.languages import identify
from havoc_data.prepare.ledger import does_not_close, unaccounted
from havoc_data.prepare.minhash import NUM_HASHES, signatures
from havoc_data.prepare.personal_data import find, mask
from havoc_data.prepare.questions import read_questions
from havoc_data.prepare.rules import judge
from havoc_data.prepare.shingles import shingle_batch
from havoc_data.prepare.templates import template_key
from havoc_data.source import Part
from havoc_data.store import written_whole

VERSION = 1
_BATCH_BYTES = 2 * 2**20
_SURROGATE = re.compile("[\ud800-\udfff]")
ARRAYS: dict[str, np.ndarray] = {
    "digests": np.zeros((0, 16), dtype=np.uint8),
    "stable_ids": np.zeros((0, 16), dtype=np.uint8),
    "text_bytes": np.zeros(0, dtype=np.int64),
    "templates": np.zeros(0, dtype=np.uint64),
    "signatures": np.zeros((0, NUM_HASHES), dtype=np.uint32),
    "shingles": np.zeros(0, dtype=np.uint32),
    "num_shingles": np.zeros(0, dtype=np.int64),
    "paragraphs": np.zeros(0, dtype=np.uint64),
    "num_paragraphs": np.zeros(0, dtype=np.int64),
}
"""The arrays of a part, one row a document, or as many as num_shingles and num_paragraphs say. Shingles are the upper
halves of the hashes, ascending: enough to tell how alike two documents are."""


@dataclass(frozen=True)
class Examination:
    """How the documents of a group are looked at."""

    cleaning: CleaningConfig
    """Rules, languages, personal data."""
    rules: str
    """What the rules do in this group: annotate, drop or off."""
    compare: bool
    """Whether near-duplicates are looked for."""
    exams: str
    """What is done about examination questions: annotate, drop or off."""
    exam_file: Path | None
    """The questions; None: there are none."""
    exam_key: str
    """Digest of the questions and of how they are looked for."""
    overlap: float
    """As in DecontaminationConfig."""

    def key(self) -> str:
        """Everything that the outcome depends on besides the text."""
        cleaning = self.cleaning.model_dump(exclude={"domain", "general", "dialog"})
        values = [VERSION, cleaning, self.rules, self.compare, self.exams, self.exam_key, self.overlap]
        return _digest(json.dumps(values, sort_keys=True)).hex()


@dataclass(frozen=True)
class ExamineTask:
    """One part to look at."""

    part: Part
    source: str
    """Name of the source."""
    form: str
    """What its documents are called in the table of formats where no file tells: the kind of the source."""
    settings: Examination
    folder: Path
    """Of all parts."""

    @property
    def key(self) -> str:
        """Name of the folder that it is written to."""
        return _digest(f"{self.source}\n{self.form}\n{self.part.key}\n{self.settings.key()}").hex()


def examine(task: ExamineTask) -> str:
    """Look at the documents of a part; one that was looked at before is left as it is.

    Returns:
        The name of its folder.

    Raises:
        DataError: the documents and rejects do not account for every byte of the part's files.
    """
    key = task.key
    folder = task.folder / key
    if not (folder / "facts.json").is_file():
        with written_whole(folder) as beside:
            _Examiner(task).write(beside)
    return key


@dataclass(frozen=True)
class _Looked:
    """A document and what was found in it."""

    document: Document
    raw: bytes
    flags: tuple[str, ...]


class _Examiner:
    """Looks at the documents of one part."""

    def __init__(self, task: ExamineTask) -> None:
        self._task, self._settings = task, task.settings
        self._facts = Facts()
        self._arrays = {name: [empty] for name, empty in ARRAYS.items()}
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._sizes = task.part.sizes()
        self._index = _exam_index(self._settings.exam_file, self._settings.exam_key, self._settings.overlap)

    def write(self, folder: Path) -> None:
        """Write the files of the part's folder."""
        with _packed(folder / "documents.jsonl.zst") as documents, _packed(folder / "ledger.jsonl.zst") as ledger:
            batch: list[_Looked] = []
            size = 0
            for item in self._task.part.documents():
                looked = self._look(item)
                if isinstance(looked, Rejected):
                    ledger.write(self._rejected(looked, item))
                    continue
                batch.append(looked)
                size += len(looked.raw)
                if size >= _BATCH_BYTES:
                    self._write_batch(batch, documents, ledger)
                    batch, size = [], 0
            self._write_batch(batch, documents, ledger)
        gap = unaccounted(self._sizes, self._spans) if self._sizes else None
        if gap:
            raise does_not_close(f"{self._task.source}: {gap}")
        for name, arrays in self._arrays.items():
            np.save(folder / f"{name}.npy", np.concatenate(arrays))
        facts = json.dumps(self._facts.values(), sort_keys=True, ensure_ascii=False)
        (folder / "facts.json").write_text(facts, encoding="utf-8")

    def _look(self, item: Document | Rejected) -> _Looked | Rejected:
        """A document with what was found in it, or the reject that it becomes."""
        if isinstance(item, Rejected):
            return item
        document = self._mended(item)
        text = document_text(document)
        raw = text.encode()
        self._facts.see(document, self._task.form, len(raw), len(text))
        flags, reject = [], None
        for rule, value, limit in self._findings(text, raw):
            self._facts.fire(rule, document.origin, (value, limit), text, len(raw))
            flags.append(rule)
            if self._settings.rules == "drop" and reject is None:
                reject = Rejected(document.origin, f"{value:.4g}, and the limit is {limit:.4g}", rule=rule)
        hit = self._exam_question(text, document.origin)
        if hit is not None:
            flags.append("exam")
            reject = reject or (Rejected(document.origin, hit, rule="exam") if self._settings.exams == "drop" else None)
        return reject or _Looked(document, raw, tuple(flags))

    def _mended(self, document: Document) -> Document:
        """The document as valid Unicode, its personal data counted and, if that is asked for, masked."""
        texts = [content for _, content in document.messages] or [document.text]
        for number, text in enumerate(texts):
            # Half a surrogate pair, which JSON can spell, is no character and has no bytes: U+FFFD takes its place.
            text = text if text.isascii() else _SURROGATE.sub("\ufffd", text)
            if self._settings.cleaning.personal_data != "off":
                found = find(text)
                self._facts.personal_data.update(each.kind for each in found)
                text = mask(text, found) if self._settings.cleaning.personal_data == "mask" else text
            texts[number] = text
        if not document.messages:
            return document if texts[0] is document.text else replace(document, text=texts[0])
        roles = [role for role, _ in document.messages]
        return replace(document, messages=tuple(zip(roles, texts, strict=True)))

    def _findings(self, text: str, raw: bytes) -> Iterator[tuple[str, float, float]]:
        """(rule, value, limit) of every rule that fires."""
        if self._settings.rules == "off":
            return
        for finding in judge(text, self._settings.cleaning.rules):
            yield finding.rule, finding.value, finding.limit
        languages = self._settings.cleaning.languages
        if languages:
            language, probability = identify(text)
            self._facts.languages[language] += len(raw)
            if language not in {*languages, "und"}:
                yield "language", probability, 0.0

    def _exam_question(self, text: str, origin: str) -> str | None:
        """Which examination question a text holds, in words; None if it holds none."""
        if self._index is None:
            return None
        hits = self._index.find(text)
        for hit in hits:
            item = self._index.items[hit.item]
            found = [item.suite, item.name, hit.overlap, self._task.source, origin, self._settings.exams]
            self._facts.contamination.append(found)
        return f"{self._index.items[hits[0].item].suite} {self._index.items[hits[0].item].name}" if hits else None

    def _rejected(self, reject: Rejected, item: Document | Rejected) -> bytes:
        """The line of the ledger of something that does not become a document."""
        spans, size = self._account(item)
        text = len(document_text(item).encode("utf-8", "replace")) if isinstance(item, Document) else 0
        if isinstance(item, Rejected):
            self._facts.reject(item, self._task.form)
        return _line({"fate": reject.rule, "reason": reject.reason, "bytes": size, "text": text, "spans": spans})

    def _account(self, item: Document | Rejected) -> tuple[list[list[Any]], int]:
        """(ranges, bytes) of an item, put into the account of their files."""
        spans = item.spans if isinstance(item, Document) else (Span(item.origin, item.start, item.end),)
        for span in spans:
            self._spans.setdefault(span.origin, []).append((span.start, span.end))
        size = sum(span.end - span.start for span in spans)
        if not self._sizes:
            size = len(document_text(item).encode("utf-8", "replace")) if isinstance(item, Document) else item.bytes
        return [[span.origin, span.start, span.end] for span in spans], size

    def _write_batch(self, batch: list[_Looked], documents: BinaryIO, ledger: BinaryIO) -> None:
        """Documents that were looked at: their lines, and what the comparison needs of them."""
        if not batch:
            return
        texts = [each.raw.decode() for each in batch]
        digests = [_content_digest(each.document, each.raw) for each in batch]
        for each, digest in zip(batch, digests, strict=True):
            document = each.document
            spans, size = self._account(document)
            content = {"messages": document.messages} if document.messages else {"text": document.text}
            place = {
                "origin": document.origin,
                "ordinal": document.ordinal,
                "start": document.start,
                "end": document.end,
            }
            line = {"id": digest.hex(), "licence": document.licence, **place, **content}
            documents.write(_line(line | ({"includes": spans[1:]} if document.includes else {})))
            line = {
                "id": digest.hex(),
                "licence": document.licence,
                "bytes": size,
                "text": len(each.raw),
                "spans": spans,
            }
            ledger.write(_line(line | ({"flags": each.flags} if each.flags else {})))
        stable = [_digest(f"{self._task.source}\n{d.origin}\n{d.ordinal}") for d in (each.document for each in batch)]
        hashes, offsets = (
            shingle_batch(texts)
            if self._settings.compare
            else (np.zeros(0, np.uint64), np.zeros(len(batch) + 1, np.int64))
        )
        # A dialog is learnt whole: nothing is cut out of what somebody said.
        found = [
            ARRAYS["paragraphs"] if each.document.messages else paragraph_hashes(text)
            for each, text in zip(batch, texts, strict=True)
        ]
        rows = {
            "digests": np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 16),
            "stable_ids": np.frombuffer(b"".join(stable), dtype=np.uint8).reshape(-1, 16),
            "text_bytes": np.array([len(each.raw) for each in batch], dtype=np.int64),
            "templates": np.array([template_key(text) for text in texts], dtype=np.uint64),
            "signatures": signatures(hashes, offsets),
            "shingles": (hashes >> np.uint64(32)).astype(np.uint32),
            "num_shingles": np.diff(offsets),
            "paragraphs": np.concatenate([ARRAYS["paragraphs"], *found]),
            "num_paragraphs": np.array([len(each) for each in found], dtype=np.int64),
        }
        for name, values in rows.items():
            self._arrays[name].append(values)


def _content_digest(document: Document, raw: bytes) -> bytes:
    """Digest of what is learnt, wherever it came from."""
    if not document.messages:
        return hashlib.blake2b(raw, digest_size=16).digest()
    content = json.dumps(document.messages, ensure_ascii=False).encode()
    return hashlib.blake2b(content, digest_size=16, person=b"messages").digest()


@lru_cache(maxsize=2)
def _exam_index(path: Path | None, key: str, overlap: float) -> ExamIndex | None:
    """One index a process; `key` stands for the contents of the file."""
    return None if path is None else ExamIndex.of(read_questions(path), overlap=overlap)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@contextmanager
def _packed(path: Path) -> Iterator[BinaryIO]:
    """A file that is compressed while it is written."""
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1, write_checksum=True).stream_writer(file) as out:
        yield out
