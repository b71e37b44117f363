from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.sources.jsonl import Options, build


def rows(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def one(folder: Path, contents: bytes) -> tuple[list[Document], list[Rejected]]:
    """What becomes of a file with these contents, beside a good one."""
    (folder / "a.jsonl").write_bytes(contents)
    (folder / "z.jsonl").write_bytes(rows({"text": "A good row."}))
    items = list(build(str(folder), Options()).documents())
    documents = [item for item in items if isinstance(item, Document)]
    assert documents.pop().text == "A good row."
    return documents, [item for item in items if isinstance(item, Rejected)]


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "notes.txt").write_bytes(b"Text.")
    assert one(tmp_path, rows({"text": "a"}))[1] == [
        Rejected("notes.pdf", "files that end in .pdf are not read by a source of kind jsonl", 4, rule="no_reader"),
        Rejected("notes.txt", "files that end in .txt are not read by a source of kind jsonl", 5, rule="no_reader"),
    ]


def test_a_file_that_vanished_after_the_listing_is_named(tmp_path: Path) -> None:
    one(tmp_path, rows({"text": "a"}))
    source = build(str(tmp_path), Options())
    (tmp_path / "a.jsonl").unlink()
    assert next(iter(source.documents())) == Rejected(
        "a.jsonl", "it cannot be read (No such file or directory), after line 0; the rows before that are kept"
    )


def test_a_folder_without_rows_is_an_error_at_once_and_one_without_a_good_row_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder is empty. Put text into it \(.jsonl, .ndjson\)"):
        build(str(tmp_path), Options())
    (tmp_path / "a.jsonl").write_bytes(b"{}\n[]\n")
    with pytest.raises(DataError) as caught:
        list(build(str(tmp_path), Options()).documents())
    assert caught.value.where == str(tmp_path)
    assert caught.value.found.startswith(
        "no text could be read from it. The first of 2: a.jsonl: line 1: the row has no 'text'"
    )
    assert caught.value.remedy == "Put text into it, or take it out of the data."


def test_without_a_path_there_is_nothing_to_read() -> None:
    with pytest.raises(ConfigError, match=r"data.sources.path: a source of kind 'jsonl' has no path. Give it"):
        build(None, Options())


def test_the_fingerprint_follows_the_contents_and_the_field(tmp_path: Path) -> None:
    one(tmp_path, rows({"text": "a"}))
    first = build(str(tmp_path), Options()).fingerprint()
    assert build(str(tmp_path), Options()).fingerprint() == first
    assert build(str(tmp_path), Options(text_field="body")).fingerprint() != first
    (tmp_path / "a.jsonl").write_bytes(rows({"text": "b"}))
    assert build(str(tmp_path), Options()).fingerprint() != first
