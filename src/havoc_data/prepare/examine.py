"""The first stage: one part of a source -> its documents, looked at one by one.

    parts/<key>/documents.jsonl.zst   one JSON line a document that no rule of its own threw out
    parts/<key>/ledger.jsonl.zst      one JSON line for every document and every reject, with the bytes it accounts for
    parts/<key>/*.npy                 what the comparison with all other documents needs
    parts/<key>/facts.json            counts for the data card
    parts/<key>/seal.json             checksums of these

A pure function: the folder's name is a hash of the part, the settings and the version of this code, and a folder that is
there and as it was written is finished. What concerns several documents (duplicates, the held-out ones) is decided
afterwards, by `compare`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard

from havoc_core.config import CleaningConfig
from havoc_data.document import Document, Rejected, Span, document_text
from havoc_data.prepare.comparable import ARRAYS, LookedAt, arrays_of, empty_array, write_array
from havoc_data.prepare.exams import VERSION as EXAMS_VERSION
from havoc_data.prepare.exams import ExamIndex, Hit
from havoc_data.prepare.facts import Facts, format_name
from havoc_data.prepare.languages import identify
from havoc_data.prepare.ledger import does_not_close, unaccounted
from havoc_data.prepare.personal_data import find, mask
from havoc_data.prepare.questions import read_questions
from havoc_data.prepare.rules import judge
from havoc_data.prepare.seal import is_sealed, seal
from havoc_data.source import Part
from havoc_data.store import written_whole

VERSION = 1
_BATCH_CHARACTERS = 2**20
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        values = [VERSION, EXAMS_VERSION, cleaning, self.rules, self.compare, self.exams, self.exam_key, self.overlap]
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
    """Look at the documents of a part; one that was looked at before, and is not damaged, is left as it is.

    Returns:
        The name of its folder.

    Raises:
        DataError: the documents and rejects do not account for every byte of the part's files.
    """
    key = task.key
    folder = task.folder / key
    if not is_sealed(folder):
        with written_whole(folder) as beside:
            _Examiner(task).write(beside)
    return key


class _Examiner:
    """Looks at the documents of one part."""

    def __init__(self, task: ExamineTask) -> None:
        self._task, self._settings = task, task.settings
        self._facts = Facts()
        self._arrays = {name: [empty_array(name)] for name in ARRAYS}
        self._spans: dict[str, list[tuple[int, int]]] = {}
        self._sizes = task.part.sizes()
        self._index = _exam_index(self._settings.exam_file, self._settings.exam_key, self._settings.overlap)
        self._items = self._index.items if self._index is not None else ()

    def write(self, folder: Path) -> None:
        """Write the files of the part's folder."""
        with _packed(folder / "documents.jsonl.zst") as documents, _packed(folder / "ledger.jsonl.zst") as ledger:
            batch: list[Document] = []
            size = 0
            for item in self._task.part.documents():
                if isinstance(item, Rejected):
                    ledger.write(self._rejected(item, item))
                    continue
                batch.append(item)
                size += len(document_text(item))
                if size >= _BATCH_CHARACTERS:
                    self._write_batch(batch, documents, ledger)
                    batch, size = [], 0
            self._write_batch(batch, documents, ledger)
        gap = unaccounted(self._sizes, self._spans) if self._sizes else None
        if gap:
            raise does_not_close(f"{self._task.source}: {gap}")
        for name, arrays in self._arrays.items():
            write_array(folder / f"{name}.npy", np.concatenate(arrays))
        self._facts.input_bytes += sum(end - start for start, end in self._sizes.values())
        facts = json.dumps(self._facts.values(), sort_keys=True, ensure_ascii=False)
        (folder / "facts.json").write_text(facts, encoding="utf-8", errors="replace")
        seal(folder)

    def _look(self, document: Document, text: str, hits: Sequence[Hit]) -> LookedAt | Rejected:
        """A document with what was found in it, or the reject that it becomes."""
        raw = text.encode()
        size = sum(span.end - span.start for span in document.spans) if self._sizes else len(raw)
        self._facts.see(document, self._form(document.origin), size=size, text_bytes=len(raw))
        flags, reject = [], None
        for rule, value, limit in self._findings(text, raw):
            self._facts.fire(rule, document.origin, (value, limit), text, len(raw))
            flags.append(rule)
            if self._settings.rules == "drop" and reject is None:
                reject = Rejected(document.origin, f"{value:.4g}, and the limit is {limit:.4g}", rule=rule)
        for hit, item in [(hit, self._items[hit.item]) for hit in hits]:
            flags = flags if "exam" in flags else [*flags, "exam"]
            found = [item.suite, item.name, hit.overlap, self._task.source, document.origin, self._settings.exams]
            self._facts.contamination.append(found)
            if self._settings.exams == "drop" and reject is None:
                reject = Rejected(document.origin, f"{item.suite} {item.name}", rule="exam")
        return reject or LookedAt(document, text, raw, tuple(flags))

    def _mended(self, document: Document) -> Document:
        """The document as valid Unicode, its personal data counted and, if that is asked for, masked."""
        texts = [content for _, content in document.messages] or [document.text]
        any_found = False
        for number, text in enumerate(texts):
            # Half a surrogate pair, which JSON can spell, is no character and has no bytes: U+FFFD takes its place.
            text = text if text.isascii() else _SURROGATE.sub("\ufffd", text)
            if self._settings.cleaning.personal_data != "off":
                found = find(text)
                any_found = any_found or bool(found)
                self._facts.personal_data.update(each.kind for each in found)
                text = mask(text, found) if self._settings.cleaning.personal_data == "mask" else text
            texts[number] = text
        self._facts.personal_documents += any_found
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

    def _rejected(self, reject: Rejected, item: Document | Rejected) -> bytes:
        """The line of the ledger of something that does not become a document."""
        spans, size = self._account(item)
        text = len(document_text(item).encode("utf-8", "replace")) if isinstance(item, Document) else 0
        if isinstance(item, Rejected):
            self._facts.reject(item, self._form(item.origin))
        return _line({"fate": reject.rule, "reason": reject.reason, "bytes": size, "text": text, "spans": spans})

    def _form(self, origin: str) -> str:
        """The format of a file, told by its name; of a source without files, its kind."""
        return (format_name(origin) if self._sizes else None) or self._task.form

    def _account(self, item: Document | Rejected) -> tuple[list[list[Any]], int]:
        """(ranges, bytes) of an item, put into the account of their files."""
        spans = item.spans if isinstance(item, Document) else (Span(item.origin, item.start, item.end),)
        for span in spans:
            self._spans.setdefault(span.origin, []).append((span.start, span.end))
        size = sum(span.end - span.start for span in spans)
        if not self._sizes:
            size = len(document_text(item).encode("utf-8", "replace")) if isinstance(item, Document) else item.bytes
            self._facts.input_bytes += size
        return [[span.origin, span.start, span.end] for span in spans], size

    def _write_batch(self, given: list[Document], documents: BinaryIO, ledger: BinaryIO) -> None:
        """Look at some documents; write their lines, and keep what the comparison needs of them."""
        mended = [self._mended(document) for document in given]
        texts = [document_text(document) for document in mended]
        hits = self._index.find_each(texts) if self._index is not None else [()] * len(texts)
        batch: list[LookedAt] = []
        for document, text, found in zip(mended, texts, hits, strict=True):
            looked = self._look(document, text, found)
            if isinstance(looked, Rejected):
                ledger.write(self._rejected(looked, document))
            else:
                batch.append(looked)
        for each in batch:
            document = each.document
            spans, size = self._account(document)
            common = {"id": each.digest.hex(), "licence": document.licence}
            content = {"messages": document.messages} if document.messages else {"text": document.text}
            place = {"origin": document.origin, "ordinal": document.ordinal}
            place |= {"start": document.start, "end": document.end}
            includes = {"includes": spans[1:]} if document.includes else {}
            documents.write(_line(common | place | includes | content))
            sizes = {"bytes": size, "text": len(each.raw), "characters": len(each.text)}
            ledger.write(_line(common | sizes | {"spans": spans} | ({"flags": each.flags} if each.flags else {})))
        if batch:
            for name, values in arrays_of(batch, source=self._task.source, near=self._settings.compare).items():
                self._arrays[name].append(values)


@lru_cache(maxsize=2)
def _exam_index(path: Path | None, key: str, overlap: float) -> ExamIndex | None:
    """One index a process; `key` stands for the contents of the file."""
    return None if path is None else ExamIndex.of(read_questions(path), overlap=overlap)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _line(values: dict[str, Any]) -> bytes:
    # A name or a licence may hold half a surrogate pair; the text no longer does.
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


@contextmanager
def _packed(path: Path) -> Iterator[BinaryIO]:
    """A file that is compressed while it is written."""
    with path.open("wb") as file, zstandard.ZstdCompressor(level=1, write_checksum=True).stream_writer(file) as out:
        yield out
