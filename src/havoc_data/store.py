"""The token store on disk, version 1.

    store/manifest.json             canonical JSON; its SHA-256 is the store id
    store/<source>/00000.tok        little-endian uint16 (uint32 for vocabularies over 65,536), no header
    store/<source>/00000.doc        uint64 [documents + 1]: where each document begins, in tokens of the shard
    store/<source>/00000.prov.zst   one JSON line a document: id, origin, ordinal, byte range, licence
    store/validation/<group>/…      the held-out documents, in the same form
    store/validation/<group>.jsonl.zst   their text, so that evaluation needs no store

A stored document is BOS text EOS. Shards are cut between documents and named in the manifest with their SHA-256. Times
and host names are kept out, so that equal inputs give equal ids.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from havoc_core.errors import DataError

FORMAT = "havoc-token-store"
VERSION = 1
SHARD_BYTES = 256 * 2**20
_SUFFIXES = (".tok", ".doc", ".prov.zst")
_CHECKED_WHEN_OPENED = 2**30
"""A store up to this size has its checksums compared whenever it is opened: about a second."""


@dataclass(frozen=True)
class SourceRecord:
    """What the manifest says of one source."""

    group: str
    tokens: int
    documents: int
    bytes: int
    licences: dict[str, int] = field(default_factory=dict)
    """Licence -> documents; "unknown" where none was named."""
    ledger: dict[str, int] = field(default_factory=dict)
    """What happened to the documents of the source: kept, duplicate, rejected, held out."""
    shards: list[dict[str, Any]] = field(default_factory=list)


class ShardWriter:
    """Writes the shards of one source.

    Args:
        folder: made if missing.
        dtype: of the tokens.
        shard_bytes: a shard is sealed when it is at least this large.
    """

    def __init__(self, folder: Path, *, dtype: np.dtype[Any], shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._dtype = dtype
        self._shard_bytes = shard_bytes
        self._tokens = io.BytesIO()
        self._offsets = [0]
        self._provenance: list[str] = []
        self.shards: list[dict[str, Any]] = []

    def add(self, ids: np.ndarray, provenance: Mapping[str, Any]) -> None:
        """Append one document."""
        self._tokens.write(ids.astype(self._dtype, copy=False).tobytes())
        self._offsets.append(self._offsets[-1] + len(ids))
        self._provenance.append(json.dumps(provenance, sort_keys=True, ensure_ascii=False))
        if self._tokens.tell() >= self._shard_bytes:
            self.seal()

    def seal(self) -> None:
        """Write what has been gathered as a shard; does nothing if that is nothing."""
        if not self._provenance:
            return
        name = f"{len(self.shards):05d}"
        lines = "".join(line + "\n" for line in self._provenance).encode()
        contents = {
            ".tok": self._tokens.getvalue(),
            ".doc": np.array(self._offsets, dtype="<u8").tobytes(),
            ".prov.zst": zstandard.ZstdCompressor(level=3).compress(lines),
        }
        for suffix, content in contents.items():
            (self._folder / (name + suffix)).write_bytes(content)
        self.shards.append(
            {
                "name": name,
                "tokens": self._offsets[-1],
                "documents": len(self._provenance),
                "files": {s: [len(c), hashlib.sha256(c).hexdigest()] for s, c in contents.items()},
            }
        )
        self._tokens, self._offsets, self._provenance = io.BytesIO(), [0], []


class StoredSource:
    """The tokens of one source, memory-mapped."""

    def __init__(self, name: str, folder: Path, record: SourceRecord, *, dtype: np.dtype[Any]) -> None:
        self.name = name
        self.group = record.group
        self.record = record
        self._folder = folder
        self._tokens = [np.memmap(folder / f"{s['name']}.tok", dtype=dtype, mode="r") for s in record.shards]
        self._first_token = np.cumsum([0, *(s["tokens"] for s in record.shards)])

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the source, which must lie in one document: a view, nothing is copied."""
        if len(self._tokens) == 1:
            return self._tokens[0][start:stop]
        shard = int(np.searchsorted(self._first_token, start, side="right")) - 1
        base = int(self._first_token[shard])
        return self._tokens[shard][start - base : stop - base]

    def offsets(self) -> np.ndarray:
        """uint64 [documents + 1]: where each document begins, in tokens of the source."""
        parts = [np.zeros(1, dtype=np.uint64)]
        for base, shard in zip(self._first_token, self.record.shards, strict=False):
            inside = np.fromfile(self._folder / f"{shard['name']}.doc", dtype="<u8")
            parts.append(inside[1:] + np.uint64(base))
        return np.concatenate(parts)

    def provenance(self) -> Iterator[dict[str, Any]]:
        """Where each document came from, in order."""
        for shard in self.record.shards:
            packed = (self._folder / f"{shard['name']}.prov.zst").read_bytes()
            # Not splitlines(): JSON leaves U+2028 and U+0085 as they are, and a file's name may hold them.
            for line in zstandard.ZstdDecompressor().decompress(packed).decode().removesuffix("\n").split("\n"):
                yield json.loads(line)


class TokenStore:
    """A finished store, opened for reading.

    Raises:
        DataError: there is none, it is of another version, a shard is missing or changed, or something leads out of it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "manifest.json"
        if not path.is_file():
            raise DataError(str(folder), "holds no token store.", "Build it: havoc data build.")
        raw = path.read_bytes()
        try:
            manifest = json.loads(raw)
        except ValueError as error:
            raise DataError(str(path), f"is no JSON ({error}).", "Build it again: havoc data build.") from None
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
            raise DataError(str(folder), "is no token store of this version.", "Build it again: havoc data build.")
        self.folder = folder
        self.id = hashlib.sha256(raw).hexdigest()
        """SHA-256 of the manifest."""
        self.manifest: dict[str, Any] = manifest
        try:
            self.dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
            self._refuse_ways_out()
            self._check(sums=self._total_bytes() <= _CHECKED_WHEN_OPENED)
            self.training = self._sources("sources", folder)
            """Source name -> tokens to learn from."""
            self.validation = self._sources("validation", folder / "validation")
            """Group -> held-out tokens."""
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            remedy = f"Delete {folder} and build it again: havoc data build."
            raise DataError(str(path), f"is damaged ({error!r}).", remedy) from None

    def verify(self) -> None:
        """Compare every shard with its checksum.

        Raises:
            DataError: names the first file that is missing or changed.
        """
        self._check(sums=True)

    def _sources(self, part: str, folder: Path) -> dict[str, StoredSource]:
        return {
            name: StoredSource(name, folder / name, SourceRecord(**record), dtype=self.dtype)
            for name, record in self.manifest[part].items()
        }

    def _files(self) -> Iterator[tuple[Path, int, str]]:
        for part, folder in (("sources", self.folder), ("validation", self.folder / "validation")):
            for name, record in self.manifest[part].items():
                for shard in record["shards"]:
                    for suffix, (size, digest) in shard["files"].items():
                        yield folder / name / (shard["name"] + suffix), size, digest

    def _refuse_ways_out(self) -> None:
        """A manifest is only text: its names must be those of files of this folder, and none of them a link."""
        remedy = f"It does not come from havoc data build: delete {self.folder} and build it again."
        for part, folder in (("sources", self.folder), ("validation", self.folder / "validation")):
            for name, record in self.manifest[part].items():
                shards = [
                    shard["name"] + suffix for shard in record["shards"] for suffix in {*_SUFFIXES, *shard["files"]}
                ]
                for each in (name, record["group"], *shards):
                    if not is_file_name(each):
                        raise DataError(
                            str(self.folder / "manifest.json"), f"{each!r} is not the plain name of a file.", remedy
                        )
                paths = [folder, folder / name, *(folder / name / each for each in shards)]
                paths += [folder / f"{name}.jsonl.zst"] if part == "validation" else []
                for path in paths:
                    if path != self.folder and path.is_symlink():
                        raise DataError(str(path), "is a link, and a token store follows none.", remedy)

    def _total_bytes(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _check(self, *, sums: bool) -> None:
        # Deleted first: `havoc data build` goes by the manifest, finds nothing changed and comes back here.
        remedy = f"Delete {self.folder} and build it again: havoc data build."
        for path, size, digest in self._files():
            if not path.is_file():
                raise DataError(str(path), "is missing.", remedy)
            if path.stat().st_size != size:
                raise DataError(str(path), f"{path.stat().st_size:,} bytes, the manifest says {size:,}.", remedy)
            if sums:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        raise DataError(str(path), "its checksum is not the manifest's.", remedy)


def is_file_name(name: object) -> bool:
    """Whether it names a file of the folder it is joined to, and nothing else: no path, not "." or ".."."""
    return isinstance(name, str) and name not in {"", ".."} and Path(name).name == name and "\0" not in name


def write_manifest(
    folder: Path,
    *,
    sources: Mapping[str, SourceRecord],
    validation: Mapping[str, SourceRecord],
    facts: Mapping[str, Any],
) -> None:
    """The last file of a store to be written: with it, the store is whole.

    Args:
        folder: of the store.
        sources, validation: what was written.
        facts: inputs key, tokenizer fingerprint, dtype, mixture ratios and whether the text is dummy text.
    """
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "sources": {name: asdict(record) for name, record in sorted(sources.items())},
        "validation": {name: asdict(record) for name, record in sorted(validation.items())},
        **facts,
    }
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    beside = folder / ".manifest.writing"
    beside.write_text(text, encoding="utf-8")
    beside.replace(folder / "manifest.json")


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends, it becomes `folder`. If it fails, nothing of it is left."""
    beside = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        replace_folder(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def replace_folder(beside: Path, folder: Path) -> None:
    """Give a finished folder its name; the one that had it is removed only after it was put aside."""
    aside = folder.with_name(folder.name + ".old")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.replace(aside)
    beside.replace(folder)
    shutil.rmtree(aside, ignore_errors=True)
