"""Folders of every format and defect, through the kind `files`."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.licences import Licences
from havoc_data.sources._file_source import FileSource
from havoc_data.sources._parts import FilePart
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


def test_a_messy_folder_is_accounted_for_to_the_byte(tmp_path: Path, tiled: Tiled) -> None:
    put(tmp_path, **MESS)
    (tmp_path / "away.txt").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe.txt")
    made = source(tmp_path, exclude=["**/draft_*"])
    sizes = tiled(made.parts())
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
        ("picture.png", "no_reader"): "files that end in .png are not read by any reader",
        ("nothing", "no_reader"): "files that end in nothing are not read by any reader",
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
    put(tmp_path, **{"a.txt.gz": gzip.compress(b"spam and eggs, again\n" * 3_300_000)})
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


def test_the_fingerprint_follows_what_is_not_read_too(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt": b"Text."})
    first = source(tmp_path).fingerprint()
    put(tmp_path, **{"b.png": b"x"})
    assert source(tmp_path).fingerprint() != first


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


def test_a_missing_package_matters_where_a_file_needs_it_and_nowhere_else(tmp_path: Path) -> None:
    put(tmp_path, **{"text/a.txt": b"Text.", "page/a.html": b"<p>Text.</p>"})
    script = f"""
import sys
sys.modules["trafilatura"] = None
from havoc_core.errors import MissingPackageError
from havoc_data.sources.files import Options, build
print(len(build({str(tmp_path / "text")!r}, Options()).parts()))
try:
    build({str(tmp_path / "page")!r}, Options())
except MissingPackageError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert said.startswith("1\n")
    assert "pip install 'havoc[formats]'" in said


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    put(tmp_path, **{"a.txt.zst": zstandard.compress(random.Random(0).randbytes(1000).hex().encode() * 20_000)})
    (part,) = source(tmp_path).parts()
    tracemalloc.start()
    try:
        assert sum(len(item.text) for item in part.documents() if isinstance(item, Document)) == 40_000_000
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()
