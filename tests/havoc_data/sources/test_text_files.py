from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.sources.text_files import Options, build


def read(folder: Path, *exclude: str) -> tuple[list[Document], list[Rejected]]:
    items = list(build(str(folder), Options(exclude=exclude)).documents())
    return [item for item in items if isinstance(item, Document)], [
        item for item in items if isinstance(item, Rejected)
    ]


def one(folder: Path, contents: bytes) -> tuple[list[Document], list[Rejected]]:
    """What becomes of a file with these contents, beside a good one."""
    (folder / "a.txt").write_bytes(contents)
    (folder / "z.txt").write_text("A good file.", encoding="utf-8")
    documents, rejected = read(folder)
    assert documents.pop().text == "A good file."
    return documents, rejected


def test_a_file_that_vanished_after_the_listing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Here.", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Gone.", encoding="utf-8")
    source = build(str(tmp_path), Options())
    (tmp_path / "b.txt").unlink()
    assert list(source.documents())[1] == Rejected("b.txt", "it cannot be read (No such file or directory)")


def test_a_file_without_the_right_to_read_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Closed.", encoding="utf-8")
    (tmp_path / "a.txt").chmod(0)
    if os.access(tmp_path / "a.txt", os.R_OK):
        pytest.skip("this user can read everything")
    (tmp_path / "b.txt").write_text("Open.", encoding="utf-8")
    assert read(tmp_path)[1] == [Rejected("a.txt", "it cannot be read (Permission denied)")]


def test_files_of_other_kinds_in_the_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "rows.jsonl").write_text("{}", encoding="utf-8")
    _, rejected = one(tmp_path, b"Text.")
    assert rejected == [
        Rejected(
            "notes.pdf", "files that end in .pdf are not read by a source of kind text_files", 8, rule="no_reader"
        ),
        Rejected(
            "rows.jsonl", "files that end in .jsonl are not read by a source of kind text_files", 2, rule="no_reader"
        ),
    ]


def test_a_folder_without_text_is_an_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(DataError) as caught:
        build(str(tmp_path), Options())
    assert caught.value.where == str(tmp_path)
    assert "it holds 1 .pdf" in caught.value.found
    assert "Convert these files" in caught.value.remedy


def test_a_folder_whose_files_all_fail_is_an_error_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        list(build(str(tmp_path), Options()).documents())
    assert caught.value.where == str(tmp_path)
    assert caught.value.found == "no text could be read from it. The first of 2: a.txt: it is empty."
    assert caught.value.remedy == "Put text into it, or take it out of the data."


def test_without_a_path_there_is_nothing_to_read() -> None:
    with pytest.raises(ConfigError, match=r"data.sources.path: a source of kind 'text_files' has no path. Give it"):
        build(None, Options())


def test_the_same_folder_gives_the_same_documents_and_fingerprint_twice(tmp_path: Path) -> None:
    one(tmp_path, b"Text.")
    first, second = build(str(tmp_path), Options()), build(str(tmp_path), Options())
    assert list(first.documents()) == list(first.documents()) == list(second.documents())
    fingerprint = first.fingerprint()
    assert second.fingerprint() == fingerprint
    (tmp_path / "a.txt").write_text("Texts.", encoding="utf-8")
    assert build(str(tmp_path), Options()).fingerprint() != fingerprint


def test_options_are_frozen_and_know_no_other_key() -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"patern": "x"})
    with pytest.raises(ValidationError):
        Options().exclude = ("x",)


def test_a_file_that_vanished_after_its_digest_stops_the_build(tmp_path: Path) -> None:
    """Regression: it was filed as unreadable under the digest of its good contents, and stayed so when it came back."""
    (tmp_path / "a.txt").write_text("Here.", encoding="utf-8")
    (tmp_path / "b.txt").write_text("Gone.", encoding="utf-8")
    (part,) = build(str(tmp_path), Options()).parts()
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt: cannot be read any more \(No such file or directory\)\.") as caught:
        list(part.documents())
    assert caught.value.remedy.startswith("Start again when nothing moves files there any more")


def test_a_compressed_text_that_breaks_off_is_kept_up_to_there(tmp_path: Path) -> None:
    """Regression: nothing of it was."""
    text = "".join(f"Line {number} of a text that was not sent to its end.\n" for number in range(3000))
    packed = gzip.compress(text.encode(), mtime=0)
    (tmp_path / "cut.txt.gz").write_bytes(packed[: len(packed) * 3 // 4])
    (tmp_path / "trailing.txt.gz").write_bytes(packed + b"sixteen bytes...")
    (part,) = build(str(tmp_path), Options()).parts()
    cut, why, whole, rest = part.documents()
    assert isinstance(cut, Document) and text.startswith(cut.text.rstrip("\ufffd")) and len(cut.text) > len(text) // 2
    assert isinstance(why, Rejected) and why.rule == "unreadable" and "break off" in why.reason
    assert isinstance(whole, Document) and whole.text == text
    assert isinstance(rest, Rejected) and rest.bytes == 0


def test_a_folder_that_is_called_like_an_archive_is_named(tmp_path: Path) -> None:
    """Regression: its files and those of the archive had one name, and the ledger did not close."""
    (tmp_path / "c.zip!").mkdir()
    (tmp_path / "c.zip!" / "s.txt").write_text("inside a folder", encoding="utf-8")
    (tmp_path / "a.txt").write_text("beside it", encoding="utf-8")
    (named,) = build(str(tmp_path), Options()).rejected()
    assert named.origin == "c.zip!" and "rename it" in named.reason
