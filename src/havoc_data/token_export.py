"""Store -> files of another stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from havoc_core.errors import DataError
from havoc_core.tokenizer import Tokenizer
from havoc_data.store import StoredSource, TokenStore, written_whole
from havoc_data.token_format import Interchange, Vocabulary, WrittenDocument


@dataclass(frozen=True)
class ExportedSource:
    """One set of files that was written."""

    path: Path
    """The file that holds the tokens."""
    documents: int
    tokens: int


def export_store(
    store: TokenStore, tokenizer: Tokenizer, *, folder: Path, interchange: Interchange, bos: bool = False
) -> list[ExportedSource]:
    """Write every source, every held-out group and the tokenizer into a new folder, or nothing at all.

        <folder>/<source>…  <folder>/validation/<group>…  <folder>/tokenizer/

    Args:
        store: what is exported.
        tokenizer: of the store.
        folder: must not exist.
        interchange: the format.
        bos: whether documents keep the beginning-of-text token; most stacks expect the end alone.

    Raises:
        DataError: the folder exists, the tokenizer is another, the store is damaged, or the format cannot hold it.
    """
    if folder.exists():
        raise DataError(str(folder), "is there already.", "Name a folder that does not exist yet.")
    if store.manifest["tokenizer"] != tokenizer.fingerprint():
        raise DataError(
            str(store.folder), "was made with another tokenizer.", "Put its own back into the run's folder."
        )
    done = []
    with written_whole(folder) as beside:
        tokenizer.save(beside / "tokenizer")
        name = next(name for name in ("tokenizer.json", "tokenizer.model") if (beside / "tokenizer" / name).is_file())
        vocabulary = Vocabulary(tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, f"tokenizer/{name}")
        (beside / "validation").mkdir()
        for place, sources in (("", store.training), ("validation", store.validation)):
            for source in sources.values():
                inside = Path(place, source.name + interchange.suffix)
                documents = _Outgoing(source, vocabulary, bos=bos)
                interchange.write(iter(documents), beside / inside, vocabulary)
                documents.check(store.folder)
                done.append(ExportedSource(folder / inside, source.record.documents, documents.tokens_written))
    return done


class _Outgoing:
    """The documents of a stored source on their way out, counted and checked."""

    def __init__(self, source: StoredSource, vocabulary: Vocabulary, *, bos: bool) -> None:
        self._source, self._vocabulary, self._bos = source, vocabulary, bos
        self._tokens_read = self._documents = 0
        self.tokens_written = 0

    def __iter__(self) -> Iterator[WrittenDocument]:
        offsets = self._source.offsets()
        for number, provenance in enumerate(self._source.provenance()):
            if number + 1 >= len(offsets):
                break  # check() says so
            ids = self._source.tokens(int(offsets[number]), int(offsets[number + 1]))
            self._tokens_read += len(ids)
            self._documents += 1
            if len(ids) and int(ids.max()) >= self._vocabulary.size:
                raise DataError(
                    self._source.name,
                    f"document {number:,} of the store holds id {int(ids.max()):,}, and the tokenizer ends at "
                    f"{self._vocabulary.size - 1:,}.",
                    "Build the store again: havoc data build.",
                )
            if not self._bos and len(ids) > 1 and int(ids[0]) == self._vocabulary.bos_id:
                ids = ids[1:]
            self.tokens_written += len(ids)
            yield WrittenDocument(ids, provenance)

    def check(self, folder: Path) -> None:
        """Whether all was there that the manifest promises."""
        record = self._source.record
        if (self._documents, self._tokens_read) != (record.documents, record.tokens):
            raise DataError(
                str(folder),
                f"{self._source.name} has {self._documents:,} documents of {self._tokens_read:,} tokens, the manifest "
                f"says {record.documents:,} of {record.tokens:,}.",
                "Build the store again: havoc data build.",
            )
