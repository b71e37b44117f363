from __future__ import annotations

import codecs
import itertools
import os
import random
import time
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


def test_a_file_is_a_document_with_its_origin_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/b.md").write_text("# Grüße\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("One.\n", encoding="utf-8")
    documents, rejected = read(tmp_path)
    assert documents == [
        Document("a.txt", "One.\n", start=0, end=5),
        Document("deep/b.md", "# Grüße\n", start=0, end=10),
    ]
    assert rejected == []


def test_path_may_be_one_file(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("Text.", encoding="utf-8")
    assert read(tmp_path / "notes") == ([Document("notes", "Text.", end=5)], [])


def test_line_ends_of_every_system_become_line_feeds(tmp_path: Path) -> None:
    documents, _ = one(tmp_path, b"a\r\nb\rc\nd\r\n\r\ne")
    assert documents[0].text == "a\nb\nc\nd\n\ne"
    assert documents[0].end == 13


def test_invalid_bytes_become_replacement_characters_and_are_counted(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, b"caf\xe9 and na\xefve people, and much more text \xff\xfe here")
    assert documents[0].text == "caf\ufffd and na\ufffdve people, and much more text \ufffd\ufffd here"
    assert rejected == [Rejected("a.txt", "4 bytes are not UTF-8 and became U+FFFD; save the file as UTF-8", 4)]


def test_a_replacement_character_of_the_author_is_not_counted(tmp_path: Path) -> None:
    assert one(tmp_path, "This \ufffd is meant.".encode())[1] == []


@pytest.mark.parametrize(
    ("mark", "encoding", "width"),
    [
        (codecs.BOM_UTF8, "utf-8", 1),
        (codecs.BOM_UTF16_LE, "utf-16-le", 2),
        (codecs.BOM_UTF16_BE, "utf-16-be", 2),
        (codecs.BOM_UTF32_LE, "utf-32-le", 4),
        (codecs.BOM_UTF32_BE, "utf-32-be", 4),
    ],
)
def test_a_byte_order_mark_names_the_encoding_and_is_no_text(
    tmp_path: Path, mark: bytes, encoding: str, width: int
) -> None:
    text = "Ordnung muss sein.\r\n" * 20_000  # over 256 KiB, so cut
    (tmp_path / "a.txt").write_bytes(mark + text.encode(encoding))
    documents, rejected = read(tmp_path)
    assert "".join(document.text for document in documents) == text.replace("\r\n", "\n")
    assert rejected == []
    assert len(documents) > 5
    data = (tmp_path / "a.txt").read_bytes()
    for document in documents:
        assert data[document.start : document.end].decode(encoding).replace("\r\n", "\n") == document.text
    assert (documents[0].start, documents[-1].end) == (len(mark), len(mark) + len(text) * width)


def test_half_a_character_at_the_end_of_a_utf16_file_stays_inside_the_file(tmp_path: Path) -> None:
    documents, _ = one(tmp_path, codecs.BOM_UTF16_LE + "Text".encode("utf-16-le") + b"x")
    assert (documents[0].text, documents[0].end) == ("Text\ufffd", 11)


def test_utf16_without_a_mark_is_named_with_its_remedy(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, "Plain English text.".encode("utf-16-le"))
    assert documents == []
    assert rejected[0].reason == "every other byte is zero: UTF-16 without a byte order mark? Save it as UTF-8"


def test_zero_bytes_inside_real_text_are_kept(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, b"Before the zero\0and after it.\n\0 A second paragraph.")
    assert documents[0].text == "Before the zero\0and after it.\n\0 A second paragraph."
    assert rejected == []


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"IHDR and so on", "it is a PNG image, whatever its name says; convert it to text"),
        (b"%PDF-1.7\nplenty of text", "it is a PDF, whatever its name says; convert it to text"),
        (random.Random(0).randbytes(50_000), "of its bytes are"),
        (bytes(range(32)) * 100, "control characters: it is no text"),
        ("Съешь же ещё этих мягких булок".encode("cp1251"), "are not UTF-8: no text, or another encoding"),
        (b"", "it is empty"),
        (codecs.BOM_UTF8, "it is empty"),
        (b" \n\t\r\n ", "white space only"),
    ],
)
def test_a_file_that_is_no_text_is_named_with_the_reason(tmp_path: Path, contents: bytes, reason: str) -> None:
    documents, rejected = one(tmp_path, contents)
    assert documents == []
    assert len(rejected) == 1
    assert (rejected[0].origin, rejected[0].bytes) == ("a.txt", len(contents))
    assert reason in rejected[0].reason


def test_latin_1_german_is_damaged_text_and_not_a_binary_file(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, "Über die Größe der Bäume läßt sich streiten, für und wider.".encode("latin-1"))
    assert "die Gr\ufffd\ufffde der B\ufffdume" in documents[0].text
    assert rejected[0].reason.startswith("7 bytes are not UTF-8")


def test_a_binary_stretch_in_a_long_text_is_left_out_and_the_rest_is_kept(tmp_path: Path) -> None:
    text = b"A line of honest text.\n" * 9000
    contents = text + bytes(70_000) + text
    (tmp_path / "a.txt").write_bytes(contents)
    documents, rejected = read(tmp_path)
    assert rejected
    assert sum(document.end - document.start for document in documents) + sum(each.bytes for each in rejected) == len(
        contents
    )
    assert sum(document.text.count("honest") for document in documents) > 15_000
    assert [document.ordinal for document in documents] == list(range(len(documents)))


def test_a_long_first_stretch_of_spaces_does_not_condemn_the_file(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, b" " * 300_000 + b"Here the text begins.")
    assert documents[-1].text.endswith("Here the text begins.")
    assert all("white space only" in each.reason for each in rejected)


def test_a_long_file_becomes_sections_that_know_their_bytes(tmp_path: Path) -> None:
    text = "".join(f"# Kapitel {n}\r\n\r\n" + "Ein Satz über Maß und Zahl.\r\n" * 1500 for n in range(10))
    data = text.encode()
    (tmp_path / "a.md").write_bytes(data)
    documents, _ = read(tmp_path)
    assert len(documents) == 10
    assert [document.text.split("\n")[0] for document in documents] == [f"# Kapitel {n}" for n in range(10)]
    assert [document.ordinal for document in documents] == list(range(10))
    assert documents[0].start == 0
    assert documents[-1].end == len(data)
    assert all(a.end == b.start for a, b in itertools.pairwise(documents))
    assert all(data[d.start : d.end].decode().replace("\r\n", "\n") == d.text for d in documents)


def test_one_line_of_20_mb_is_read_in_seconds_without_loss(tmp_path: Path) -> None:
    line = "word " * 4_000_000
    (tmp_path / "a.txt").write_text(line, encoding="utf-8")
    start = time.process_time()
    documents, _ = read(tmp_path)
    assert time.process_time() - start < 10  # 0.1 s here
    assert "".join(document.text for document in documents) == line
    assert max(len(document.text) for document in documents) <= 64 * 1024


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
    assert rejected == [Rejected("notes.pdf", "files that end in .pdf are not read by text_files", 8)]


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
