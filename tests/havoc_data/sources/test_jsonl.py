from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import zstandard

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Document, Rejected
from havoc_data.sources.jsonl import Options, build


def rows(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def read(path: Path, **options: Any) -> tuple[list[Document], list[Rejected]]:
    items = list(build(str(path), Options(**options)).documents())
    return [item for item in items if isinstance(item, Document)], [
        item for item in items if isinstance(item, Rejected)
    ]


def one(folder: Path, contents: bytes) -> tuple[list[Document], list[Rejected]]:
    """What becomes of a file with these contents, beside a good one."""
    (folder / "a.jsonl").write_bytes(contents)
    (folder / "z.jsonl").write_bytes(rows({"text": "A good row."}))
    documents, rejected = read(folder)
    assert documents.pop().text == "A good row."
    return documents, rejected


def test_each_row_is_a_document_that_knows_its_line(tmp_path: Path) -> None:
    data = rows({"text": "One.\r\nTwo."}, {"text": "Größe", "id": 7})
    (tmp_path / "a.jsonl").write_bytes(data)
    first = data.index(b"\n") + 1
    assert read(tmp_path) == (
        [
            Document("a.jsonl", "One.\nTwo.", ordinal=0, start=0, end=first),
            Document("a.jsonl", "Größe", ordinal=1, start=first, end=len(data)),
        ],
        [],
    )


def test_another_field_can_hold_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows({"text": 3, "body": "The text."}))
    assert read(tmp_path, text_field="body")[0][0].text == "The text."


def test_rows_with_messages_become_dialogs(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?\r\n"}]
    messages.append({"role": "assistant", "content": "4"})
    documents, rejected = one(tmp_path, rows({"messages": messages, "text": "not this"}))
    assert documents[0].messages == (("system", "Be brief."), ("user", "2+2?\n"), ("assistant", "4"))
    assert documents[0].text == ""
    assert rejected == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "no valid JSON (Invalid control character at character 14)"),
        (b"{'text': 1}", "no valid JSON (Expecting property name enclosed in double quotes at character 2)"),
        (b"[1, 2]", "the line is a list, not an object"),
        (b'"text"', "the line is a text, not an object"),
        (b"17", "the line is a number, not an object"),
        (b"null", "the line is null, not an object"),
        (b"{}", "the row has no 'text' and no 'messages'; it has no key at all (set options: text_field)"),
        (b'{"body": "x", "id": 1}', "the row has no 'text' and no 'messages'; it has 'body', 'id' (set options"),
        (b'{"text": null}', "'text' is null, not a text"),
        (b'{"text": true}', "'text' is true or false, not a text"),
        (b'{"text": "  "}', "'text' is empty"),
        (b'{"text": "\xff"}', "byte 11 of the line is not UTF-8"),
        (b"[" * 100_000, "JSON that cannot be read (maximum recursion depth"),
        (b'{"text": ' + b"9" * 5000 + b"}", "JSON that cannot be read (Exceeds the limit"),
        (b'{"messages": "hello"}', "'messages' is a text, not a list of messages"),
        (b'{"messages": []}', "'messages' is empty"),
        (b'{"messages": [{"role": "user"}]}', "message 1 lacks a 'role' or a 'content' that is a text"),
        (b'{"messages": ["hello"]}', "message 1 lacks a 'role' or a 'content' that is a text"),
        (b'{"messages": [{"role": "human", "content": "x"}]}', "message 1 has the role 'human'; roles are system,"),
        (b'{"messages": [{"role": "user", "content": " "}]}', "every message is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_its_line_and_the_others_are_kept(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    documents, rejected = one(tmp_path, rows({"text": "Before."}) + line + b"\n" + rows({"text": "After."}))
    assert [document.text for document in documents] == ["Before.", "After."]
    assert [document.ordinal for document in documents] == [0, 1]
    assert rejected[0].origin == "a.jsonl:2"
    assert rejected[0].reason.startswith(reason)
    assert rejected[0].bytes == len(line) + 1
    assert len(rejected) == 1


def test_blank_lines_a_mark_carriage_returns_and_a_missing_last_line_end_do_no_harm(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, b'\xef\xbb\xbf{"text": "a"}\r\n\r\n   \n{"text": "b"}')
    assert [document.text for document in documents] == ["a", "b"]
    assert rejected == []


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    documents, _ = one(tmp_path, b'{"text": "x\\ud83dx \\ud83d\\ude00"}\n')
    assert documents[0].text == "x\ufffdx 😀"


def test_a_long_row_becomes_sections_of_one_line(tmp_path: Path) -> None:
    text = ("A sentence of some length, and another one.\n" * 20 + "\n") * 400
    documents, _ = one(tmp_path, rows({"text": text}))
    assert len(documents) == 6
    assert "".join(document.text for document in documents) == text
    assert [document.ordinal for document in documents] == list(range(6))
    assert len({(document.start, document.end) for document in documents}) == 1


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".JSONL.GZ"])
def test_compressed_files_are_read_like_others(tmp_path: Path, ending: str) -> None:
    data = rows(*({"text": f"Row {number}."} for number in range(5000)))
    pack = zstandard.compress if ending.endswith("zst") else gzip.compress
    # Two members in one file, as `cat a.gz b.gz` makes it.
    (tmp_path / f"a{ending}").write_bytes(pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :]))
    documents, rejected = read(tmp_path)
    assert [document.text for document in documents] == [f"Row {number}." for number in range(5000)]
    assert (documents[9].ordinal, documents[9].start, documents[9].end) == (9, 0, 0)
    assert rejected == []


def random_rows(count: int) -> tuple[list[str], bytes]:
    draw = random.Random(0)
    texts = [draw.randbytes(30).hex() for _ in range(count)]
    return texts, rows(*({"text": text} for text in texts))


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_the_rows_before_the_place_where_a_compressed_file_breaks_off_are_kept(tmp_path: Path, ending: str) -> None:
    texts, data = random_rows(20_000)
    packed = zstandard.compress(data) if ending.endswith("zst") else gzip.compress(data)
    (tmp_path / f"a{ending}").write_bytes(packed[: len(packed) // 2])
    documents, rejected = read(tmp_path)
    assert len(documents) > 5_000
    assert [document.text for document in documents] == texts[: len(documents)]
    assert len(rejected) == 1
    assert rejected[0].origin == f"a{ending}"
    assert f"its compressed data break off or are damaged after line {len(documents)} (" in rejected[0].reason
    assert rejected[0].reason.endswith("; the rows before that are kept")


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_damaged_stretch_in_a_compressed_file_costs_no_row_before_it(tmp_path: Path, ending: str) -> None:
    """Damaged data may unpack to nonsense for a while before that is noticed; the nonsense is named row by row."""
    texts, data = random_rows(20_000)
    packed = bytearray(zstandard.compress(data) if ending.endswith("zst") else gzip.compress(data))
    packed[len(packed) // 2 : len(packed) // 2 + 500] = bytes(500)
    (tmp_path / f"a{ending}").write_bytes(packed)
    documents, rejected = read(tmp_path)
    assert [document.text for document in documents[:9000]] == texts[:9000]
    assert rejected


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_named(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"a{ending}").write_bytes(rows({"text": "plain"}))
    (tmp_path / "b.jsonl").write_bytes(rows({"text": "plain"}))
    documents, rejected = read(tmp_path)
    assert len(documents) == 1
    assert "its compressed data break off or are damaged after line 0" in rejected[0].reason


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    assert one(tmp_path, b"") == ([], [Rejected("a.jsonl", "it is empty")])


def test_a_line_of_more_than_128_mib_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    line = b'{"text": "' + bytes(2**20).replace(b"\0", b"x") * 129 + b'"}\n'
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(line + rows({"text": "After."}), 1))
    size = len(line)
    del line
    tracemalloc.start()
    try:
        documents, rejected = read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
    assert [document.text for document in documents] == ["After."]
    assert rejected == [Rejected("a.jsonl.zst:1", "a line of more than 128 MiB", size)]


def test_a_hundred_thousand_rows_are_read_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows({"text": "x" * 60}) * 100_000, 1))
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(build(str(tmp_path), Options()).documents(), 20_000)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_other_files_are_named_unless_the_text_source_of_the_folder_names_them(tmp_path: Path) -> None:
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    assert one(tmp_path, rows({"text": "a"}))[1] == [
        Rejected("notes.pdf", "files that end in .pdf are not read by jsonl", 4)
    ]
    (tmp_path / "notes.txt").write_bytes(b"Text.")
    assert one(tmp_path, rows({"text": "a"}))[1] == []


def test_a_file_that_vanished_after_the_listing_is_named(tmp_path: Path) -> None:
    one(tmp_path, rows({"text": "a"}))
    source = build(str(tmp_path), Options())
    (tmp_path / "a.jsonl").unlink()
    assert next(iter(source.documents())) == Rejected(
        "a.jsonl", "it cannot be read after line 0 (No such file or directory)"
    )


def test_a_folder_without_rows_is_an_error_at_once_and_one_without_a_good_row_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder is empty. Put text into it \(.jsonl, .jsonl.gz, .jsonl.zst\)"):
        build(str(tmp_path), Options())
    (tmp_path / "a.jsonl").write_bytes(b"{}\n[]\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert caught.value.where == str(tmp_path)
    assert caught.value.found.startswith(
        "no text could be read from it. The first of 2: a.jsonl:1: the row has no 'text'"
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
