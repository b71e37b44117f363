"""The third stage: a part and what was decided about its documents -> its final ledger.

    settled/<key>/fates.npy           uint8 [documents]
    settled/<key>/repeated.npy        bool [paragraphs]: those that are left out when the document is read
    settled/<key>/ledger.jsonl.zst    one JSON line for every document and every reject, with its fate
    settled/<key>/sums.json           documents and bytes by fate, licences
    settled/<key>/seal.json           checksums of these

The text is not written again: a corpus is its parts, read with these decisions beside them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from havoc_core.errors import DataError
from havoc_data.document import Document, Span
from havoc_data.prepare.comparable import write_array
from havoc_data.prepare.compare import Verdict
from havoc_data.prepare.duplicates import paragraphs
from havoc_data.prepare.ledger import FATES, HELD_OUT, KEPT, sum_lines
from havoc_data.prepare.seal import check_sealed, is_sealed, seal
from havoc_data.store import written_whole
from havoc_report.data_record import length_column

VERSION = 1
NOTHING_SETTLED: Mapping[str, Any] = {
    "sums": {"documents": {}, "input_bytes": {}, "text_bytes": {}},
    "licences": {},
    "lengths": {},
    "repeated_paragraphs": 0,
    "repeated_paragraph_bytes": 0,
}
"""What sums.json would say of no part at all."""


@dataclass(frozen=True)
class SettleTask:
    """One part to settle."""

    part: Path
    """Its folder."""
    verdict: Verdict
    """What was decided."""
    cut: bool
    """Whether repeated paragraphs are left out."""
    folder: Path
    """Of everything that was settled."""

    @property
    def key(self) -> str:
        """Name of the folder that it is written to."""
        digest = hashlib.blake2b(f"{VERSION} {self.part.name} {self.cut}".encode(), digest_size=16)
        for array in (self.verdict.fates, self.verdict.survivors, self.verdict.repeated):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def settle(task: SettleTask) -> str:
    """Write the final ledger of a part; one that was settled before, and is not damaged, is left as it is.

    Returns:
        The name of its folder.
    """
    key = task.key
    if not is_sealed(task.folder / key):
        with written_whole(task.folder / key) as beside:
            _write(task, beside)
    return key


def _write(task: SettleTask, folder: Path) -> None:
    verdict = task.verdict
    write_array(folder / "fates.npy", verdict.fates)
    write_array(folder / "repeated.npy", verdict.repeated if task.cut else np.zeros_like(verdict.repeated))
    licences: Counter[str] = Counter()
    lengths: Counter[str] = Counter()
    finished: list[dict[str, Any]] = []
    with (
        (folder / "ledger.jsonl.zst").open("wb") as file,
        zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file) as out,
    ):
        number = 0
        for line in read_lines(task.part / "ledger.jsonl.zst"):
            if "fate" not in line:
                fate = int(verdict.fates[number])
                line = {"fate": FATES[fate], **line}
                if verdict.survivors[number].any():
                    line["like"] = verdict.survivors[number].tobytes().hex()
                licences[line["licence"] or "unknown"] += fate == KEPT
                lengths[str(length_column(line["characters"]))] += fate <= HELD_OUT
                number += 1
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
            finished.append({name: line[name] for name in ("fate", "bytes", "text")})
    sizes = np.load(task.part / "paragraph_bytes.npy")
    values = {
        "sums": vars(sum_lines(finished)),
        "licences": dict(sorted((+licences).items())),
        "lengths": dict(sorted((+lengths).items())),
        "repeated_paragraphs": int(verdict.repeated.sum()),
        "repeated_paragraph_bytes": int(sizes[verdict.repeated].sum()),
    }
    (folder / "sums.json").write_text(json.dumps(values, sort_keys=True), encoding="utf-8", errors="replace")
    seal(folder)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON lines of a compressed file.

    Raises:
        DataError: it is damaged.
    """
    try:
        with path.open("rb") as file:
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
                yield json.loads(line)
    except (OSError, zstandard.ZstdError, ValueError) as error:
        raise DataError(
            str(path), f"is damaged ({error}).", f"Delete {path.parents[2]}: the text is then collected again."
        ) from None


@dataclass(frozen=True)
class CorpusShard:
    """A part with the decisions about it: the documents that are learnt or held out. Can be sent to another process."""

    part: Path
    """Its folder."""
    settled: Path
    """Folder of the decisions."""

    def documents(self, *, held_out: bool | None = None) -> Iterator[tuple[str, Document]]:
        """(id, document) of every document that was kept, in order.

        Args:
            held_out: True: those for validation; False: those to learn from; None: both.

        Raises:
            DataError: a file is damaged.
        """
        wanted = {None: {KEPT, HELD_OUT}, True: {HELD_OUT}, False: {KEPT}}[held_out]
        remedy = f"Delete {self.part.parents[1]}: the text is then collected again."
        check_sealed(self.part, "documents.jsonl.zst", "num_paragraphs.npy", remedy=remedy)
        check_sealed(self.settled, "fates.npy", "repeated.npy", remedy=remedy)
        path = self.part / "documents.jsonl.zst"
        try:
            fates = np.load(self.settled / "fates.npy")
            repeated = np.load(self.settled / "repeated.npy")
            ends = np.cumsum(np.load(self.part / "num_paragraphs.npy"))
            for number, (line, fate) in enumerate(zip(read_lines(path), fates, strict=True)):
                if fate in wanted:
                    start = int(ends[number - 1]) if number else 0
                    yield line["id"], _document_of(line, repeated[start : int(ends[number])])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(str(path), f"is damaged ({error}).", remedy) from None

    def ledger_lines(self) -> Iterator[dict[str, Any]]:
        """Every line of the part's ledger.

        Raises:
            DataError: the file is damaged.
        """
        remedy = f"Delete {self.part.parents[1]}: the text is then collected again."
        check_sealed(self.settled, "ledger.jsonl.zst", remedy=remedy)
        return read_lines(self.settled / "ledger.jsonl.zst")


def _document_of(line: dict[str, Any], repeated: np.ndarray) -> Document:
    text = line.get("text", "")
    if repeated.any():
        places = paragraphs(text)
        left = text
        for start, end in [place for place, cut in zip(places, repeated, strict=True) if cut][::-1]:
            left = left[:start] + left[end:]
        # A document that is nothing but paragraphs of others stays: one without any text is none.
        text = left if left.strip() else text
    return Document(
        origin=line["origin"],
        text=text,
        messages=tuple((role, content) for role, content in line.get("messages", [])),
        ordinal=line["ordinal"],
        start=line["start"],
        end=line["end"],
        licence=line["licence"],
        includes=tuple(Span(*span) for span in line.get("includes", [])),
    )
