"""The token store on disk, version 1.

    store/manifest.json             canonical JSON; its SHA-256 is the store id
    store/<source>/00000.tok        little-endian uint16 (uint32 for vocabularies over 65,536), no header
    store/<source>/00000.doc        uint64 [documents + 1]: where each document begins, in tokens of the shard
    store/<source>/00000.prov.zst   one JSON line a document: id, origin, ordinal, byte range, licence; one or more frames
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from havoc_core.errors import DataError
from havoc_data.names import is_file_name
from havoc_data.remote import RemoteFolder, RemoteTokens
from havoc_data.shard_writer import SUFFIXES

FORMAT = "havoc-token-store"
VERSION = 1
TokenFile = np.ndarray | RemoteTokens
"""Tokens of a shard; slices of it are arrays."""
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


class StoredSource:
    """The tokens of one source, memory-mapped, or fetched from where they lie."""

    def __init__(self, name: str, record: SourceRecord, tokens: Sequence[TokenFile], *, folder: Path) -> None:
        self.name = name
        self.group = record.group
        self.record = record
        self._folder = folder
        self._tokens = tokens
        self._first_token = np.cumsum([0, *(s["tokens"] for s in record.shards)])

    @property
    def num_shards(self) -> int:
        """Shards of the source."""
        return len(self.record.shards)

    def tokens(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the source, which must lie in one document: a view, nothing is copied."""
        if len(self._tokens) == 1:
            return self._tokens[0][start:stop]
        shard, first, last = self._place(start, stop)
        return self._tokens[shard][first:last]

    def read_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Tell which tokens will be asked for next, so that what lies far away is on its way."""
        for start, stop in ranges:
            shard, first, last = self._place(start, stop)
            tokens = self._tokens[shard]
            if isinstance(tokens, RemoteTokens):
                tokens.read_ahead(first, last)

    def _place(self, start: int, stop: int) -> tuple[int, int, int]:
        """(shard, first token in it, one past the last)."""
        shard = int(np.searchsorted(self._first_token, start, side="right")) - 1
        base = int(self._first_token[shard])
        return shard, start - base, stop - base

    def offsets(self) -> np.ndarray:
        """uint64 [documents + 1]: where each document begins, in tokens of the source."""
        parts = [self.offsets_of_shard(number)[1:] for number in range(self.num_shards)]
        return np.concatenate([np.zeros(1, dtype=np.uint64), *parts])

    def offsets_of_shard(self, number: int) -> np.ndarray:
        """uint64 [documents of the shard + 1]: where each begins, in tokens of the source."""
        inside = np.fromfile(self._folder / f"{self.record.shards[number]['name']}.doc", dtype="<u8")
        return inside + np.uint64(self._first_token[number])

    def checksums(self) -> list[str]:
        """SHA-256 of every file of tokens and boundaries, in order: equal ones, equal rows."""
        return [shard["files"][suffix][1] for shard in self.record.shards for suffix in (".tok", ".doc")]

    def provenance(self) -> Iterator[dict[str, Any]]:
        """Where each document came from, in order."""
        for shard in self.record.shards:
            yield from self._provenance(shard)

    def provenance_of(self, documents: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Number of a document -> where it came from; reads only the shards in which they are."""
        wanted = sorted(set(documents))
        first_document = np.cumsum([0, *(shard["documents"] for shard in self.record.shards)])
        found: dict[int, dict[str, Any]] = {}
        for shard, first, end in zip(self.record.shards, first_document[:-1], first_document[1:], strict=True):
            inside = [number for number in wanted if first <= number < end]
            if inside:
                lines = islice(self._provenance(shard), inside[-1] - int(first) + 1)
                found |= {int(first) + i: line for i, line in enumerate(lines) if int(first) + i in inside}
        return found

    def _provenance(self, shard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        with (self._folder / f"{shard['name']}.prov.zst").open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            # Line feeds alone end a line: JSON leaves U+2028 and U+0085 as they are, and a file's name may hold them.
            for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                yield json.loads(line)


class TokenStore:
    """A finished store, opened for reading.

    Args:
        folder: of the store.
        far: where its tokens lie, if not in the folder.

    Raises:
        DataError: there is none, it is of another version, a shard is missing or changed, or something leads out of it.
    """

    def __init__(self, folder: Path, *, far: RemoteFolder | None = None) -> None:
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
        self._far = far
        self.id = hashlib.sha256(raw).hexdigest()
        """SHA-256 of the manifest."""
        self.manifest: dict[str, Any] = manifest
        try:
            self.dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
            self._refuse_ways_out()
            self._check(sums=self._total_bytes() <= _CHECKED_WHEN_OPENED)
            self._check_manifest(path)
            self.training = self._sources("sources", folder)
            """Source name -> tokens to learn from."""
            self.validation = self._sources("validation", folder / "validation")
            """Group -> held-out tokens."""
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            remedy = f"Delete {folder} and build it again: havoc data build."
            raise DataError(str(path), f"is damaged ({error!r}).", remedy) from None

    @property
    def is_far(self) -> bool:
        """Whether its tokens lie on another machine."""
        return self._far is not None

    def verify(self) -> None:
        """Compare every shard with its checksum, those that lie elsewhere too: they are read whole.

        Raises:
            DataError: names the first file that is missing or changed.
        """
        self._check(sums=True, far_sums=True)

    def _sources(self, part: str, folder: Path) -> dict[str, StoredSource]:
        return {
            name: StoredSource(
                name,
                SourceRecord(**record),
                [self._tokens(part, name, folder / name, shard["name"]) for shard in record["shards"]],
                folder=folder / name,
            )
            for name, record in self.manifest[part].items()
        }

    def _tokens(self, part: str, name: str, folder: Path, shard: str) -> TokenFile:
        if self._far is not None and part == "sources":
            return RemoteTokens(self._far, f"{name}/{shard}.tok", self.dtype)
        # As a plain array: slices of numpy's memmap class are several times slower.
        return np.asarray(np.memmap(folder / f"{shard}.tok", dtype=self.dtype, mode="r"))

    def _files(self) -> Iterator[tuple[Path, int, str]]:
        for part, folder in (("sources", self.folder), ("validation", self.folder / "validation")):
            for name, record in self.manifest[part].items():
                for shard in record["shards"]:
                    for suffix, (size, digest) in shard["files"].items():
                        yield folder / name / (shard["name"] + suffix), size, digest
        for group, (size, digest) in self.manifest["validation_texts"].items():
            yield self.folder / "validation" / f"{group}.jsonl.zst", size, digest

    def _refuse_ways_out(self) -> None:
        """A manifest is only text: its names must be those of files of this folder, and none of them a link."""
        remedy = f"It does not come from havoc data build: delete {self.folder} and build it again."
        for part, folder in (("sources", self.folder), ("validation", self.folder / "validation")):
            for name, record in self.manifest[part].items():
                shards = [
                    shard["name"] + suffix for shard in record["shards"] for suffix in {*SUFFIXES, *shard["files"]}
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

    def _is_far(self, path: Path) -> bool:
        return path.suffix == ".tok" and path.parent.parent == self.folder

    def _check_manifest(self, path: Path) -> None:
        """Shares and names are read from the manifest: a flipped bit in it would be another mixture."""
        if self.manifest.get("checksum") != checksum_of_manifest(self.manifest):
            remedy = f"Delete {self.folder} and build it again: havoc data build."
            raise DataError(str(path), "its checksum is not that of what it says.", remedy)

    def _total_bytes(self) -> int:
        return sum(size for _, size, _ in self._files())

    def _check(self, *, sums: bool, far_sums: bool = False) -> None:
        # Deleted first: `havoc data build` goes by the manifest, finds nothing changed and comes back here.
        remedy = f"Delete {self.folder} and build it again: havoc data build."
        if self._far is not None:
            remedy = (
                f"Delete {self.folder} and try again; if that does not help, copy the store to {self._far.url} again."
            )
        for path, size, digest in self._files():
            if self._far is not None and self._is_far(path):
                name = path.relative_to(self.folder).as_posix()
                found = self._far.size(name)
                if found != size:
                    raise DataError(f"{self._far.url}/{name}", f"{found:,} bytes, the manifest says {size:,}.", remedy)
                if far_sums and self._far.digest(name) != digest:
                    raise DataError(f"{self._far.url}/{name}", "its checksum is not the manifest's.", remedy)
                continue
            if not path.is_file():
                raise DataError(str(path), "is missing.", remedy)
            if path.stat().st_size != size:
                raise DataError(str(path), f"{path.stat().st_size:,} bytes, the manifest says {size:,}.", remedy)
            if sums:
                with path.open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                        raise DataError(str(path), "its checksum is not the manifest's.", remedy)


def open_store(location: str, *, copies: Path) -> TokenStore:
    """A store in a folder or behind a URL.

    Args:
        location: a folder, or a URL that fsspec reads.
        copies: folder for what is copied from a URL: all but the tokens to learn from.

    Raises:
        DataError: as TokenStore; or it cannot be read.
        ConfigError: the URL is of no known kind.
    """
    if "://" not in location:
        return TokenStore(Path(location))
    far = RemoteFolder(location)
    raw = far.read("manifest.json")
    names = list(_names_to_copy(raw, where=f"{far.url}/manifest.json"))  # all of them looked at before any is used
    folder = copies / hashlib.sha256(raw).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(raw)
    for name in names:
        if not (folder / name).is_file():
            far.fetch(name, folder / name)
    return TokenStore(folder, far=far)


def _names_to_copy(raw: bytes, *, where: str) -> Iterator[str]:
    """Every file of a store but the tokens to learn from, relative to it."""
    try:
        manifest = json.loads(raw)
        for part, prefix in (("sources", ""), ("validation", "validation/")):
            for name, record in manifest[part].items():
                if not is_file_name(name):
                    raise ValueError(f"{name!r} is no plain name")
                if part == "validation":
                    yield f"{prefix}{name}.jsonl.zst"
                for shard in record["shards"]:
                    for suffix in shard["files"]:
                        if not is_file_name(shard["name"] + suffix):
                            raise ValueError(f"{shard['name'] + suffix!r} is no plain name")
                        if part == "validation" or suffix != ".tok":
                            yield f"{prefix}{name}/{shard['name']}{suffix}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(where, f"is no manifest of a token store ({error!r}).", "Copy the store again.") from None


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
    texts = {group: folder / "validation" / f"{group}.jsonl.zst" for group in validation}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "sources": {name: asdict(record) for name, record in sorted(sources.items())},
        "validation": {name: asdict(record) for name, record in sorted(validation.items())},
        "validation_texts": {group: _measured(path) for group, path in sorted(texts.items()) if path.is_file()},
        **facts,
    }
    manifest["checksum"] = checksum_of_manifest(manifest)
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    beside = folder / ".manifest.writing"
    beside.write_text(text, encoding="utf-8")
    beside.replace(folder / "manifest.json")


def checksum_of_manifest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of what a manifest says, its own `checksum` left out, in hex."""
    values = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _measured(path: Path) -> list[Any]:
    """[bytes, SHA-256 in hex] of a file."""
    with path.open("rb") as file:
        return [path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()]


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
