"""A corpus on disk: every document once, its split decided, every byte accounted for.

corpus/manifest.json          inputs key, parts of every source, ledgers, counts for the data card, its own checksum
corpus/parts/<key>/…          see `examine`
corpus/settled/<key>/…        see `settle`
corpus/unread/<key>           lines of the ledger about files that no reader took, one JSON a line, zstandard
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import zstandard

from havoc_core.errors import DataError
from havoc_data.document import Document
from havoc_data.prepare.exams import Contamination
from havoc_data.prepare.ledger import SourceLedger
from havoc_data.prepare.seal import SEAL, checksum_of
from havoc_data.prepare.settle import CorpusShard

VERSION = 3


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
    parts: dict[str, tuple[tuple[str, str], ...]]
    """Source -> (name in parts/, name in settled/) of its parts, in order."""
    unread: dict[str, str]
    """Source -> name in unread/ of the lines about files that no reader took."""
    facts: dict[str, dict[str, Any]]
    """Source -> what was counted in it; see `facts`."""
    questions: dict[str, int]
    """Suite -> examination questions that were looked for; empty where none were."""
    families: tuple[tuple[str, int, str], ...]
    """(where the first one came from, how many, how it begins) of documents that differ in their numbers only."""

    @property
    def groups(self) -> dict[str, str]:
        """Source -> group."""
        return {ledger.name: ledger.group for ledger in self.ledgers}

    @property
    def contamination(self) -> tuple[Contamination, ...]:
        """Examination questions that were found in the text."""
        return tuple(Contamination(*found) for facts in self.facts.values() for found in facts["contamination"])

    def shards(self, source: str) -> list[CorpusShard]:
        """The parts of a source, in order."""
        return [CorpusShard(self.folder / "parts" / p, self.folder / "settled" / s) for p, s in self.parts[source]]

    def documents(self, source: str, *, held_out: bool | None = None) -> Iterator[tuple[str, Document]]:
        """(id, document) of every document of a source that was kept.

        Args:
            source: its name.
            held_out: True: those for validation; False: those to learn from; None: both.

        Raises:
            DataError: a file is damaged.
        """
        return chain.from_iterable(shard.documents(held_out=held_out) for shard in self.shards(source))

    def ledger_lines(self, source: str) -> Iterator[dict[str, Any]]:
        """Every line of a source's ledger: fate, bytes, spans and, where it became text, id, text and licence.

        Raises:
            DataError: a file is damaged.
        """
        yield from _unread_lines(self.folder / "unread" / self.unread[source])
        for shard in self.shards(source):
            yield from shard.ledger_lines()


def _unread_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file in unread/, whose name is their checksum."""
    try:
        # As a stream: decompress() would believe a damaged header how much memory is needed.
        with path.open("rb") as file:
            raw = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
    except (OSError, zstandard.ZstdError):
        raw = b"damaged"
    if hashlib.blake2b(raw, digest_size=16).hexdigest() != path.name:
        raise DataError(
            str(path),
            "is damaged (its contents are not what its name says).",
            f"Delete {path.parents[1]}: the text is then collected again.",
        )
    yield from map(json.loads, raw.decode().split("\n")[:-1])


def open_corpus(folder: Path) -> Corpus | None:
    """A corpus that `collect` wrote, whatever it was collected from; None if there is none, or it is not whole."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        whole = manifest["version"] == VERSION and manifest.pop("checksum") == checksum_of(manifest)
        corpus = _corpus_of(manifest, folder) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged: it may hold anything
        return None
    if corpus is None:
        return None
    files = [folder / "unread" / name for name in corpus.unread.values()]
    files += [
        folder / place / name / SEAL
        for pairs in corpus.parts.values()
        for pair in pairs
        for place, name in zip(("parts", "settled"), pair, strict=True)
    ]
    return corpus if all(file.is_file() for file in files) else None


def manifest_of(corpus: Corpus) -> dict[str, Any]:
    """What manifest.json says."""
    values = {
        "version": VERSION,
        "key": corpus.key,
        "ratios": corpus.ratios,
        "missing_groups": list(corpus.missing_groups),
        "dummy": corpus.dummy,
        "fallback": corpus.fallback,
        "ledgers": [ledger.values() for ledger in corpus.ledgers],
        "parts": {source: [list(pair) for pair in pairs] for source, pairs in corpus.parts.items()},
        "unread": corpus.unread,
        "facts": corpus.facts,
        "questions": corpus.questions,
        "families": [list(family) for family in corpus.families],
    }
    return {**values, "checksum": checksum_of(values)}


def _corpus_of(manifest: dict[str, Any], folder: Path) -> Corpus:
    parts = {
        source: tuple((_name(part), _name(settled)) for part, settled in pairs)
        for source, pairs in manifest["parts"].items()
    }
    corpus = Corpus(
        folder=folder,
        key=_text(manifest["key"]),
        ratios={_text(group): float(share) for group, share in manifest["ratios"].items()},
        missing_groups=tuple(map(_text, manifest["missing_groups"])),
        dummy=bool(manifest["dummy"]),
        fallback=bool(manifest["fallback"]),
        ledgers=tuple(SourceLedger.of(values) for values in manifest["ledgers"]),
        parts=parts,
        unread={source: _name(unread) for source, unread in manifest["unread"].items()},
        facts=dict(manifest["facts"]),
        questions={_text(suite): int(count) for suite, count in manifest["questions"].items()},
        families=tuple((_text(origin), int(count), _text(start)) for origin, count, start in manifest["families"]),
    )
    if {
        ledger.name for ledger in corpus.ledgers
    } != parts.keys() or not parts.keys() == corpus.facts.keys() == corpus.unread.keys():
        raise ValueError("its ledgers and its parts name different sources")
    return corpus


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _name(value: object) -> str:
    """The name of a folder that a hash gave; a manifest is only text, and must not lead out of the corpus."""
    name = _text(value)
    if len(name) != 32 or not set(name) <= set("0123456789abcdef"):
        raise ValueError(f"{name!r} is no hash")
    return name
