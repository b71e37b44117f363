"""Folders of every format and defect, through the kind `files`."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.licences import Licences
from havoc_data.reader import Reader
from havoc_data.sources._file_source import FileSource
from havoc_data.sources._parts import FilePart, read_unit
from havoc_data.sources.files import Options, build

PLAIN = ("text", "jsonl")


def source(folder: Path, **options: object) -> FileSource:
    return build(str(folder), Options.model_validate({"formats": PLAIN, **options}))


def put(folder: Path, **files: bytes) -> None:
    for name, contents in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)


def assert_tiled(parts: Sequence[FilePart]) -> dict[str, int]:
    """Every byte of every file belongs to one document or reject; origin -> bytes."""
    spans: dict[str, list[tuple[int, int]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for part in parts:
        for origin, (start, end) in part.sizes().items():
            known = sizes.get(origin, (start, start))
            assert known[1] == start, "pieces lie side by side"
            sizes[origin] = known[0], end
        for item in part.documents():
            for span in item.spans if isinstance(item, Document) else (item,):
                spans.setdefault(span.origin, []).append((span.start, span.end))
    assert spans.keys() == sizes.keys()
    for origin, (start, end) in sizes.items():
        position = start
        for first, last in sorted(spans[origin]):
            assert first == position, (origin, first, position)
            position = last
        assert (start, position) == (0, end), origin
    return {origin: end for origin, (_, end) in sizes.items()}


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(mode: Any = "w:gz", **members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


MESS: dict[str, bytes] = {
    "plain.txt": b"Plain text.\n",
    "empty.txt": b"",
    "blank.txt": b" \n\n",
    "image.txt": b"\x89PNG\r\n\x1a\n" + bytes(500),
    "noise.txt": random.Random(0).randbytes(5000),
    "zeros.txt": "No mark".encode("utf-16-le"),
    "old.txt": "Größe und Länge über alle Maßen, für Übungen.\n".encode("latin-1"),
    "mixed.txt": "Größe in UTF-8.\n".encode() + "Größe in einem Byte, für alle.\n".encode("latin-1"),
    "special.md": b"<|endoftext|> is text.\n",
    "wide.txt": "Größe".encode("utf-16"),
    "cut.txt.gz": gzip.compress(random.Random(1).randbytes(9000).hex().encode())[:5000],
    "whole.txt.zst": zstandard.compress(b"Packed text.\n"),
    "not.txt.zst": b"not packed",
    "twice.txt.gz.gz": gzip.compress(gzip.compress(b"Packed twice.\n")),
    "bomb.txt.gz": gzip.compress(bytes(70_000_000), 1),
    "rows.jsonl": b'{"text": "A row."}\n{"text": "cut\n\n[1]\n{"text": "Another."}\n\n',
    "rows.jsonl.gz": gzip.compress(b'{"text": "A row."}\n' * 50)[:-6],
    "wide.jsonl": '{"text": "x"}'.encode("utf-16"),
    "a.zip": zipped(**{"in/a.txt": b"In a zip.\n", "../out.txt": b"x", "b.jsonl.gz": gzip.compress(b'{"text": "Row."}\n')}),
    "b.tar.gz": tarred(**{"in/a.txt": b"In a tar.\n", "c.jsonl": b'{"text": "Row."}\n', "d.txt.gz": gzip.compress(b"Deep.\n")}),
    "c.tar": tarred("w", **{"a.txt": b"One.\n", "b.txt": b"", "inner.zip": zipped(x=b"x"), ".hidden.txt": b"x"}),
    "cut.tar.gz": tarred(**{"a.txt": b"kept.\n" * 3000, "b.txt": random.Random(2).randbytes(9000).hex().encode()})[:-4000],
    "cut.zip": zipped(**{"a.txt": b"x"})[:-5],
    "picture.png": b"\x89PNG",
    "nothing": b"no ending",
    "LICENSE": b"Apache License, Version 2.0",
    "sub/metadata.jsonl": b'{"path": "a.txt", "licence": "CC0-1.0"}\nbroken\n',
    "sub/a.txt": b"Free.\n",
    "sub/draft_b.txt": b"A draft.\n",
    ".git/config": b"hidden",
}  # fmt: skip


def test_a_messy_folder_is_accounted_for_to_the_byte(tmp_path: Path) -> None:
    put(tmp_path, **MESS)
    (tmp_path / "away.txt").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe.txt")
    made = source(tmp_path, exclude=["**/draft_*"])
    sizes = assert_tiled(made.parts())
    assert sizes["cut.tar.gz!/a.txt"] == 18_000
    assert sizes["bomb.txt.gz"] == 64 * 2**20
    # Every file is read, an archive, or named with what became of it.
    named = {item.origin for item in made.rejected()}
    for origin, _ in made.files():
        inside = [each for each in (*sizes, *named) if each == origin or each.startswith(f"{origin}!/")]
        assert inside, origin
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(size for _, size in made.files()) == on_disk


def test_each_defect_of_a_messy_folder_is_named(tmp_path: Path) -> None:
    put(tmp_path, **MESS)
    (tmp_path / "away.txt").symlink_to("/etc/hostname")
    items = list(source(tmp_path, exclude=["**/draft_*"]).documents())
    said = {(item.origin, item.rule): item.reason for item in items if isinstance(item, Rejected)}
    for (origin, rule), words in {
        ("empty.txt", "empty"): "it is empty",
        ("blank.txt", "empty"): "white space only",
        ("image.txt", "unreadable"): "it is a PNG image",
        ("noise.txt", "unreadable"): "of its bytes are",
        ("zeros.txt", "unreadable"): "UTF-16 without a byte order mark?",
        ("cut.txt.gz", "unreadable"): "its compressed data break off",
        ("not.txt.zst", "unreadable"): "its compressed data are damaged (no zstandard frame)",
        ("bomb.txt.gz", "unreadable"): "every other byte is zero",
        ("rows.jsonl", "unreadable"): "line ",
        ("rows.jsonl.gz", "unreadable"): "break off, after line 50",
        ("wide.jsonl", "unreadable"): "it is UTF-16-LE",
        ("a.zip!/../out.txt", "unreadable"): "leads out of the archive",
        ("c.tar!/inner.zip", "unreadable"): "an archive inside an archive is not opened; unpack it",
        ("c.tar!/.hidden.txt", "hidden"): "its name begins with a dot",
        ("c.tar!/b.txt", "empty"): "it is empty",
        ("cut.tar.gz", "unreadable"): "the members before that are kept",
        ("cut.zip", "unreadable"): "it may be cut off",
        ("picture.png", "no_reader"): "files that end in .png are not read by files",
        ("nothing", "no_reader"): "files that end in nothing are not read by files",
        ("LICENSE", "licence_file"): "it is the licence of other files",
        ("sub/metadata.jsonl", "metadata_file"): "",
        ("sub/draft_b.txt", "excluded"): "left out by exclude '**/draft_*'",
        (".git", "hidden"): "hidden folder",
        ("away.txt", "unreadable"): "a symbolic link that leaves the folder",
    }.items():
        assert words in said[origin, rule], origin
    reasons = [item.reason for item in items if isinstance(item, Rejected) and item.origin == "sub/metadata.jsonl"]
    assert sorted(reasons) == ["it describes other files", "line 2 of the sidecar: no valid JSON"]


def test_what_is_good_in_a_messy_folder_is_read_with_its_licence(tmp_path: Path) -> None:
    put(tmp_path, **MESS)
    documents = [item for item in source(tmp_path).documents() if isinstance(item, Document)]
    texts = {item.origin: (item.text, item.licence) for item in documents if len(item.text) < 100}
    assert texts["plain.txt"] == ("Plain text.\n", "Apache-2.0")
    assert texts["sub/a.txt"] == ("Free.\n", "CC0-1.0")
    assert texts["whole.txt.zst"][0] == "Packed text.\n"
    assert texts["twice.txt.gz.gz"][0] == "Packed twice.\n"
    assert texts["a.zip!/in/a.txt"][0] == "In a zip.\n"
    assert texts["a.zip!/b.jsonl.gz"][0] == "Row."
    assert texts["b.tar.gz!/in/a.txt"][0] == "In a tar.\n"
    assert texts["b.tar.gz!/d.txt.gz"][0] == "Deep.\n"
    assert texts["wide.txt"][0] == "Größe"
    assert texts["mixed.txt"][0] == "Größe in UTF-8.\nGröße in einem Byte, für alle.\n"


def test_a_bomb_of_text_is_read_up_to_its_bound_and_named(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt.gz": gzip.compress(b"spam and eggs, again\n" * 3_300_000, 1)})
    (part,) = source(tmp_path).parts()
    *documents, last = part.documents()
    assert all(isinstance(item, Document) for item in documents)
    assert isinstance(last, Rejected)
    assert "a decompression bomb" in last.reason
    assert (last.end, part.sizes()) == (64 * 2**20, {"a.txt.gz": (0, 64 * 2**20)})


def test_the_order_of_listing_and_dates_matter_to_nothing(tmp_path: Path) -> None:
    names = list(MESS)
    made = []
    for number in range(2):
        folder = tmp_path / str(number)
        random.Random(number).shuffle(names)
        put(folder, **{name: MESS[name] for name in names})
        os.utime(folder / "plain.txt", (number, number))
        made.append(source(folder))
    one, two = made
    assert [part.key for part in one.parts()] == [part.key for part in two.parts()]
    assert list(one.documents()) == list(two.documents())
    assert one.fingerprint() == two.fingerprint()


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


def test_the_fingerprint_follows_what_is_not_read_too(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"Text."})
    first = source(tmp_path).fingerprint()
    put(tmp_path, **{"b.png": b"x"})
    assert source(tmp_path).fingerprint() != first


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
def test_cutting_a_large_file_into_parts_loses_nothing(tmp_path: Path, split_bytes: int) -> None:
    text = "".join(f"Line {n} of a paragraph, Größe {n}².\r\n" + "\n" * (n % 7 == 0) for n in range(1500))
    rows = "".join(json.dumps({"text": f"Row {n}: Größe"}) + "\n" * (1 + n % 2) for n in range(1000))
    put(
        tmp_path,
        **{"a.txt": text.encode(), "b.jsonl": rows.encode(), "c.txt": b"x" * 5000, "d.txt": "ä".encode() * 900},
    )
    whole = [item for item in source(tmp_path).documents() if isinstance(item, Document)]
    made = replace(source(tmp_path), split_bytes=split_bytes, part_bytes=split_bytes * 3)
    units = [unit for part in made.parts() for unit in part.units]
    assert len(units) > 70_000 // (split_bytes + 50), "files are cut"
    assert assert_tiled(made.parts()) == assert_tiled(source(tmp_path).parts())
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
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], split_bytes: int
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
    assert assert_tiled(made.parts()) == expected
    assert assert_tiled(replace(made, split_bytes=split_bytes, part_bytes=1).parts()) == expected


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


def test_one_file_is_read_by_what_its_name_says_or_else_as_text(tmp_path: Path) -> None:
    put(tmp_path, **{"rows.jsonl": b'{"text": "Row."}\n', "notes": b"Text.", "a.zip": zipped(**{"x.txt": b"X."})})
    put(tmp_path, **{"notes.gz": gzip.compress(b"Text.")})
    texts = []
    for name in ("rows.jsonl", "notes", "a.zip", "notes.gz"):
        (document,) = build(str(tmp_path / name), Options()).documents()
        assert isinstance(document, Document)
        texts.append((document.origin, document.text))
    assert texts == [("rows.jsonl", "Row."), ("notes", "Text."), ("a.zip!/x.txt", "X."), ("notes.gz", "Text.")]


def test_a_format_or_option_of_a_reader_that_does_not_exist_is_answered_with_what_does(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"Text."})
    with pytest.raises(ConfigError, match=r"options.formats: 'txet' is not a format .* Did you mean 'text'\?"):
        source(tmp_path, formats=["txet"])
    with pytest.raises(ConfigError, match=r"options.reader_options: 'zzz' is not a format .* There are: text, jsonl"):
        source(tmp_path, reader_options={"zzz": {}})
    with pytest.raises(ConfigError) as caught:
        source(tmp_path, reader_options={"jsonl": {"text_field": 7}})
    assert caught.value.where == "data.sources.options.reader_options.jsonl.text_field"
    assert caught.value.remedy.startswith("Options of 'jsonl': text_field")


def test_a_source_without_a_path_or_without_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a source of kind 'files' has no path"):
        build(None, Options())
    put(tmp_path, **{"a.png": b"x", "LICENSE": b"x"})
    with pytest.raises(DataError, match=r"nothing in it is text; it holds 1 .png, 1 no ending. Convert these files"):
        build(str(tmp_path), Options())
    put(tmp_path, **{"a.txt": b""})
    with pytest.raises(DataError, match=r"no text could be read from it. The first of 1: a.txt: it is empty."):
        list(source(tmp_path).documents())


def test_a_source_knows_the_licences_of_its_files(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"Text.", "COPYING": b"GNU Free Documentation License, Version 1.3"})
    assert source(tmp_path).licences == Licences({}, {"": "GFDL-1.3"})
