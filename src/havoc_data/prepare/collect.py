"""Sources -> one corpus on disk: every document once, its split decided, every loss accounted for.

corpus/<source>.jsonl.zst   one JSON line a document
corpus/manifest.json        inputs key, ledger, held-out ids
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import zstandard

from havoc_core.config import DataMixtureConfig
from havoc_core.errors import DataError
from havoc_data.discovery import SourcePlan, discover
from havoc_data.document import Document, Rejected
from havoc_data.store import is_file_name, written_whole

VERSION = 1
MIN_HELD_OUT_BYTES = 32 * 1024
"""Less text than this says too little about a group."""
_EXAMPLES = 20
_SIZE_OF = {"kept": "kept_bytes", "duplicates": "duplicate_bytes", "rejected": "rejected_bytes"}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class SourceLedger:
    """What became of everything in one source."""

    name: str
    group: str
    kept: int = 0
    kept_bytes: int = 0
    duplicates: int = 0
    duplicate_bytes: int = 0
    rejected: int = 0
    rejected_bytes: int = 0
    examples: tuple[str, ...] = ()
    """Some of the rejected: "origin: reason"."""


@dataclass(frozen=True)
class Corpus:
    """A collected corpus."""

    folder: Path
    key: str
    """Hash of every input and setting that went into it."""
    ratios: dict[str, float]
    """Group -> share, after groups without text were handled."""
    missing_groups: tuple[str, ...]
    dummy: bool
    fallback: bool
    ledgers: tuple[SourceLedger, ...]
    held_out: dict[str, frozenset[str]]
    """Group -> ids of the documents kept for validation."""

    @property
    def groups(self) -> dict[str, str]:
        """Source -> group."""
        return {ledger.name: ledger.group for ledger in self.ledgers}

    def documents(self, source: str) -> Iterator[tuple[str, Document]]:
        """(id, document) of every document of a source that was kept, held-out ones included.

        Raises:
            DataError: the file is damaged.
        """
        path = self.folder / f"{source}.jsonl.zst"
        try:
            with path.open("rb") as file:
                stream = zstandard.ZstdDecompressor().stream_reader(file)
                for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                    values = json.loads(line)
                    messages = tuple((role, content) for role, content in values.pop("messages"))
                    yield values.pop("id"), Document(messages=messages, **values)
        except (zstandard.ZstdError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                str(path), f"is damaged ({error}).", f"Delete {self.folder}: the text is then collected again."
            ) from None

    def is_held_out(self, source: str, document_id: str) -> bool:
        """Whether a document is for validation."""
        return document_id in self.held_out[self.groups[source]]


def document_text(document: Document) -> str:
    """The text of a document; of a dialog, its contents one after another."""
    return document.text or "\n".join(content for _, content in document.messages)


def collect(data: DataMixtureConfig, *, base: Path, folder: Path) -> Corpus:
    """The corpus that the settings describe; collected again only if an input or a setting has changed.

    Raises:
        DataError: no text, or a group too small to hold anything out.
    """
    plan = discover(data, base)
    key = _inputs_key(data, plan)
    existing = open_corpus(folder)
    if existing is not None and existing.key == key:
        return existing
    with written_whole(folder) as beside:
        ledgers, sizes = _write_documents(plan, beside)
        held_out = {
            group: _choose_held_out(group, docs, data.validation_fraction) for group, docs in sizes.items() if docs
        }
        manifest = {
            "version": VERSION,
            "key": key,
            "ratios": plan.ratios,
            "missing_groups": list(plan.missing_groups),
            "dummy": plan.dummy,
            "fallback": plan.fallback_used,
            "ledgers": [asdict(ledger) for ledger in ledgers],
            "held_out": {group: sorted(ids) for group, ids in held_out.items()},
        }
        (beside / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")
    corpus = open_corpus(folder)
    assert corpus is not None, "a corpus that was just written can be opened"
    return corpus


def inputs_key(data: DataMixtureConfig, *, base: Path) -> str:
    """What `collect` would file this text under, without collecting it."""
    return _inputs_key(data, discover(data, base))


def _inputs_key(data: DataMixtureConfig, plan: SourcePlan) -> str:
    inputs = [[entry.name, entry.group, entry.config.kind, entry.source.fingerprint()] for entry in plan.entries]
    settings = [VERSION, data.validation_fraction, plan.ratios]
    return hashlib.blake2b(json.dumps([settings, inputs], sort_keys=True).encode(), digest_size=16).hexdigest()


def open_corpus(folder: Path) -> Corpus | None:
    """A corpus that `collect` wrote, whatever it was collected from; None if there is none, or it is not whole."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        corpus = _corpus_of(manifest, folder) if manifest["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: it may hold anything
        return None
    if corpus is None or not _is_well_formed(corpus):
        return None
    return corpus if all((folder / f"{ledger.name}.jsonl.zst").is_file() for ledger in corpus.ledgers) else None


def _corpus_of(manifest: dict[str, Any], folder: Path) -> Corpus:
    ledgers = tuple(SourceLedger(**{**row, "examples": tuple(_listed(row["examples"]))}) for row in manifest["ledgers"])
    return Corpus(
        folder=folder,
        key=manifest["key"],
        ratios=manifest["ratios"],
        missing_groups=tuple(_listed(manifest["missing_groups"])),
        dummy=manifest["dummy"],
        fallback=manifest["fallback"],
        ledgers=ledgers,
        held_out={group: frozenset(_listed(ids)) for group, ids in manifest["held_out"].items()},
    )


def _listed(value: object) -> list[Any]:
    if not isinstance(value, list):  # a text would pass for a list of its characters
        raise TypeError(f"{value!r} is no list")
    return value


def _is_well_formed(corpus: Corpus) -> bool:
    """Whether every part has its type; a damaged manifest gives whatever it holds."""
    texts = [corpus.key, *corpus.missing_groups, *(text for ids in corpus.held_out.values() for text in ids)]
    counts: list[object] = []
    for ledger in corpus.ledgers:
        texts += [ledger.group, *ledger.examples]
        counts += [getattr(ledger, field.name) for field in fields(ledger) if field.default == 0]
    return (
        all(isinstance(text, str) for text in texts)
        and all(type(count) is int for count in counts)
        and isinstance(corpus.ratios, dict)
        and all(type(share) in {int, float} for share in corpus.ratios.values())
        and all(isinstance(flag, bool) for flag in (corpus.dummy, corpus.fallback))
        and all(is_file_name(ledger.name) and ledger.group in corpus.held_out for ledger in corpus.ledgers)
    )


def _write_documents(plan: SourcePlan, folder: Path) -> tuple[list[SourceLedger], dict[str, dict[str, int]]]:
    """Every source's file; gives the ledgers, and group -> id -> bytes."""
    seen: set[bytes] = set()
    sizes: dict[str, dict[str, int]] = {group: {} for group in plan.ratios}
    ledgers = []
    for name in dict.fromkeys(entry.name for entry in plan.entries):
        entries = [entry for entry in plan.entries if entry.name == name]
        group = entries[0].group
        counts: dict[str, int] = {}
        examples: list[str] = []
        with (
            (folder / f"{name}.jsonl.zst").open("wb") as file,
            zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file) as out,
        ):
            for raw in (item for entry in entries for item in entry.source.documents()):
                item = _without_surrogates(raw)
                fate, size = _fate(item, seen)
                counts[fate] = counts.get(fate, 0) + 1
                size_name = _SIZE_OF[fate]
                counts[size_name] = counts.get(size_name, 0) + size
                if isinstance(item, Rejected):
                    examples.append(f"{item.origin}: {item.reason}")
                elif fate == "kept":
                    identity = _digest(item).hex()
                    sizes[group][identity] = size
                    out.write(json.dumps({"id": identity, **asdict(item)}, ensure_ascii=False).encode() + b"\n")
        ledgers.append(SourceLedger(name=name, group=group, examples=tuple(examples[:_EXAMPLES]), **counts))
        if not counts.get("kept"):
            raise DataError(
                name,
                "gave no text." + "".join(f"\n    {example}" for example in examples[:5]),
                "Add text, or leave the source out.",
            )
    return ledgers, sizes


def _fate(item: Document | Rejected, seen: set[bytes]) -> tuple[str, int]:
    if isinstance(item, Rejected):
        return "rejected", item.bytes
    size = len(document_text(item).encode())
    digest = _digest(item)
    if digest in seen:
        return "duplicates", size
    seen.add(digest)
    return "kept", size


def _without_surrogates(item: Document | Rejected) -> Document | Rejected:
    """Half a surrogate pair, which JSON can spell, is no character and has no bytes: U+FFFD takes its place."""
    if isinstance(item, Rejected) or not any(
        _SURROGATE.search(part) for part in (item.text, *(c for _, c in item.messages))
    ):
        return item
    messages = tuple((role, _SURROGATE.sub("\ufffd", content)) for role, content in item.messages)
    return replace(item, text=_SURROGATE.sub("\ufffd", item.text), messages=messages)


def _digest(document: Document) -> bytes:
    content = json.dumps([document.text, document.messages], ensure_ascii=False)
    return hashlib.blake2b(content.encode(), digest_size=16).digest()


def _choose_held_out(group: str, sizes: dict[str, int], fraction: float) -> frozenset[str]:
    """Documents whose hash, as a fraction of all hashes, is below `fraction`; more in hash order up to 32 KiB."""
    in_order = sorted(sizes)
    limit = int(fraction * 2**128)
    chosen: list[str] = []
    taken = 0
    for identity in in_order:
        if int(identity, 16) >= limit and taken >= MIN_HELD_OUT_BYTES:
            break
        chosen.append(identity)
        taken += sizes[identity]
    total = sum(sizes.values())
    if taken < MIN_HELD_OUT_BYTES or 2 * taken > total:
        raise DataError(
            f"group {group}",
            f"{total:,} bytes in {len(sizes):,} documents are too little to hold {MIN_HELD_OUT_BYTES:,} of them out.",
            "Add text to the group, or split its files so that a part can be held out.",
        )
    return frozenset(chosen)


def summary(corpus: Corpus) -> dict[str, Any]:
    """What became of the text, for screens and reports: source -> counts."""
    return {ledger.name: asdict(ledger) for ledger in corpus.ledgers}
