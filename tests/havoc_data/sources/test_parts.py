"""How files become parts, and how the bytes of a part are accounted for."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import DataError
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.reader import Reader
from havoc_data.sources._file_source import FileSource
from havoc_data.sources._parts import FilePart, read_unit
from havoc_data.sources.files import Options, build

Tiled = Callable[[Sequence[FilePart]], dict[str, int]]
PLAIN = ("text", "jsonl")


def source(folder: Path, **options: object) -> FileSource:
    return build(str(folder), Options.model_validate({"formats": PLAIN, **options}))


def put(folder: Path, **files: bytes) -> None:
    for name, contents in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)


def tarred(mode: Any = "w:gz", **members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_the_key_of_a_part_follows_all_that_its_documents_depend_on(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"Text.", "b.jsonl": b'{"text": "Row."}'})

    def keys(**options: object) -> tuple[str, ...]:
        return tuple(part.key for part in source(tmp_path, **options).parts())

    first = keys()
    assert keys() == first
    assert keys(reader_options={"jsonl": {"text_field": "body"}})[0] == first[0]
    assert keys(reader_options={"jsonl": {"text_field": "body"}})[1] != first[1]
    put(tmp_path, LICENSE=b"Apache License, Version 2.0")
    assert set(keys()).isdisjoint(first)
    (tmp_path / "LICENSE").unlink()
    put(tmp_path, **{"a.txt": b"Test."})
    assert (keys()[0] != first[0], keys()[1]) == (True, first[1])
    put(tmp_path, **{"a.txt": b"Text."})
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert keys()[0] != first[0]


def test_small_files_share_a_part_and_a_part_can_be_sent_to_another_process(tmp_path: Path) -> None:
    put(tmp_path, **{f"{name}.txt": name.encode() * 10 for name in "abcdef"})
    made = replace(source(tmp_path), part_bytes=25)
    assert [[unit[0].origin for unit in part.units] for part in made.parts()] == [
        ["a.txt", "b.txt"],
        ["c.txt", "d.txt"],
        ["e.txt", "f.txt"],
    ]
    assert len(source(tmp_path).parts()) == 1
    for part in made.parts():
        again = pickle.loads(pickle.dumps(part))
        assert again == part
        assert list(again.documents()) == list(part.documents())


def test_the_members_of_a_compressed_tar_archive_stay_in_one_part(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"a", "m.tar.gz": tarred(**{f"{n}.txt": b"x" * 100 for n in "abc"}), "z.txt": b"z"})
    made = replace(source(tmp_path), part_bytes=50)
    assert [len(part.units) for part in made.parts()] == [1, 3, 1]


@pytest.mark.parametrize("split_bytes", [64, 1000, 20_000])
def test_cutting_a_large_file_into_parts_loses_nothing(tmp_path: Path, split_bytes: int, tiled: Tiled) -> None:
    text = "".join(f"Line {n} of a paragraph, Größe {n}².\r\n" + "\n" * (n % 7 == 0) for n in range(1500))
    rows = "".join(json.dumps({"text": f"Row {n}: Größe"}) + "\n" * (1 + n % 2) for n in range(1000))
    put(
        tmp_path,
        **{"a.txt": text.encode(), "b.jsonl": rows.strip().encode(), "c.txt": b"x" * 5000, "d.txt": "ä".encode() * 900},
    )
    whole = [item for item in source(tmp_path).documents() if isinstance(item, Document)]
    made = replace(source(tmp_path), split_bytes=split_bytes, part_bytes=split_bytes * 3)
    units = [unit for part in made.parts() for unit in part.units]
    assert len(units) > 70_000 // (split_bytes + 50), "files are cut"
    assert tiled(made.parts()) == tiled(source(tmp_path).parts())
    items = list(made.documents())
    pieces = [item for item in items if isinstance(item, Document)]
    assert len(pieces) == len(items), "nothing is rejected"
    for origin in ("a.txt", "b.jsonl", "c.txt", "d.txt"):
        assert "".join(each.text for each in pieces if each.origin == origin) == "".join(
            each.text for each in whole if each.origin == origin
        )
    assert len({(each.origin, each.ordinal) for each in pieces}) == len(pieces)
    rows_of = [[each.text for each in items if each.origin == "b.jsonl"] for items in (pieces, whole)]
    assert rows_of[0] == rows_of[1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
            st.sampled_from(
                [b"\n", b"\r\n", b"\n\n", b" ", b"\xef\xbb\xbf", b"\xff\xfe", b"\0\0", b'{"text": "a"}\n', b"{}\n"]
            ),
        ),
        max_size=12,
    ),
    st.integers(1, 60),
)
def test_whatever_the_bytes_of_a_file_are_each_belongs_to_one_document_or_reject(
    tmp_path_factory: pytest.TempPathFactory, tiled: Tiled, pieces: list[bytes], split_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    contents = b"".join(pieces)
    put(
        folder,
        **{
            "a.txt": contents,
            "b.jsonl": contents,
            "c.md": b"---\nkey: x\n---\n" + contents,
            "d.txt.gz": gzip.compress(contents),
        },
    )
    made = source(folder)
    expected = {"a.txt": len(contents), "b.jsonl": len(contents), "c.md": 15 + len(contents), "d.txt.gz": len(contents)}
    assert tiled(made.parts()) == expected
    assert tiled(replace(made, split_bytes=split_bytes, part_bytes=1).parts()) == expected


def test_a_file_that_changes_between_listing_and_reading_stops_the_work(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"Before."})
    made = source(tmp_path)
    parts = made.parts()
    put(tmp_path, **{"a.txt": b"Afterwards."})
    with pytest.raises(DataError, match=r"a.txt: changed while it was being read. Start again when nothing writes"):
        list(parts[0].documents())
    with pytest.raises(DataError, match="changed while it was being read"):
        replace(made).parts()


@dataclass(frozen=True)
class Breaking:
    """A reader that gives the first three bytes and then fails."""

    error: Exception | None

    def units(self, items: Sequence[Input]) -> list[tuple[Input, ...]]:
        return [tuple(items)]

    def boundary(self, item: Input, near: int) -> int | None:
        return None

    def read(self, unit: tuple[Input, ...]) -> Iterator[Document | Rejected]:
        yield Document("a", "abc", start=0, end=3)
        if self.error is not None:
            raise self.error


def unit(folder: Path, **files: bytes) -> tuple[Input, ...]:
    put(folder, **files)
    return tuple(Input(name, folder / name) for name in files)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InputError("it breaks off"), "it breaks off"),
        (ValueError("odd\n  bytes"), "the reader failed: ValueError: odd bytes"),
        (RecursionError("too deep"), "the reader failed: RecursionError: too deep"),
        (OSError(5, "Input/output error"), "the reader failed: OSError: [Errno 5] Input/output error"),
    ],
)
def test_what_a_failing_reader_did_not_come_to_is_rejected(tmp_path: Path, error: Exception, reason: str) -> None:
    reader: Reader = Breaking(error)
    assert list(read_unit(reader, unit(tmp_path, a=b"abcdefgh", b=b"xy", c=b"")))[1:] == [
        Rejected("a", reason, 5, 3),
        Rejected("b", reason, 2, 0),
    ]


def test_an_error_of_the_whole_is_no_fault_of_a_file(tmp_path: Path) -> None:
    for error in (DataError("x", "all is lost.", "Stop."), MemoryError()):
        with pytest.raises(type(error)):
            list(read_unit(Breaking(error), unit(tmp_path, a=b"abcd")))


def test_an_empty_file_of_which_its_reader_says_nothing_is_named(tmp_path: Path) -> None:
    assert list(read_unit(Breaking(None), unit(tmp_path, a=b"abc", b=b"")))[1:] == [
        Rejected("b", "it is empty", rule="empty")
    ]


def test_bytes_that_a_reader_passes_over_are_left_for_the_ledger_to_notice(tmp_path: Path) -> None:
    assert len(list(read_unit(Breaking(None), unit(tmp_path, a=b"abcd")))) == 1
