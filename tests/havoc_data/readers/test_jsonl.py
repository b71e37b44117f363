from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard

from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers.jsonl import Options, build
from havoc_data.sources import jsonl as files


def rows(*values: Any) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def read(path: Path, **options: Any) -> tuple[list[Document], list[Rejected]]:
    items = list(files.build(str(path), files.Options(**options)).documents())
    return [item for item in items if isinstance(item, Document)], [
        item for item in items if isinstance(item, Rejected)
    ]


def one(folder: Path, contents: bytes, **options: Any) -> tuple[list[Document], list[Rejected]]:
    """What becomes of a file with these contents, beside a good one."""
    (folder / "a.jsonl").write_bytes(contents)
    (folder / "z.jsonl").write_bytes(rows({"text": "A good row."}))
    documents, rejected = read(folder, **options)
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
    before = rows({"text": "Before."})
    documents, rejected = one(tmp_path, before + line + b"\n" + rows({"text": "After."}), mend_encoding=False)
    assert [document.text for document in documents] == ["Before.", "After."]
    assert [document.ordinal for document in documents] == [0, 1]
    assert (rejected[0].origin, rejected[0].start) == ("a.jsonl", len(before))
    assert rejected[0].reason.startswith(f"line 2: {reason}")
    assert rejected[0].bytes == len(line) + 1
    assert len(rejected) == 1


def test_blank_lines_a_mark_carriage_returns_and_a_missing_last_line_end_do_no_harm(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, b'\xef\xbb\xbf{"text": "a"}\r\n\r\n   \n{"text": "b"}')
    # Blank lines belong to the row after them, the mark to the row behind it.
    assert [(document.text, document.start, document.end) for document in documents] == [("a", 0, 18), ("b", 18, 37)]
    assert rejected == []


def test_blank_lines_at_the_end_belong_to_the_last_row_and_alone_are_named(tmp_path: Path) -> None:
    assert one(tmp_path, b'{"text": "a"}\n\n \n')[0] == [Document("a.jsonl", "a", end=17)]
    assert one(tmp_path, b"[]\n\n")[1][0].bytes == 4
    assert one(tmp_path, b"\n \n")[1] == [Rejected("a.jsonl", "white space only", 3, rule="empty")]


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    documents, _ = one(tmp_path, b'{"text": "x\\ud83dx \\ud83d\\ude00"}\n')
    assert documents[0].text == "x\ufffdx 😀"


def test_a_long_row_becomes_sections_that_share_out_its_line(tmp_path: Path) -> None:
    text = ("A sentence of some length, and another one.\n" * 20 + "\n") * 400
    documents, _ = one(tmp_path, rows({"text": text}))
    assert len(documents) == 6
    assert "".join(document.text for document in documents) == text
    assert [document.ordinal for document in documents] == list(range(6))
    assert (documents[0].start, documents[-1].end) == (0, len(rows({"text": text})))
    assert all(one.end == two.start for one, two in pairwise(documents))
    assert all(60_000 < document.end - document.start < 70_000 for document in documents[:-1])


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".JSONL.GZ"])
def test_compressed_files_are_read_like_others(tmp_path: Path, ending: str) -> None:
    data = rows(*({"text": f"Row {number}."} for number in range(5000)))
    pack = zstandard.compress if ending.endswith("zst") else gzip.compress
    # Two members in one file, as `cat a.gz b.gz` makes it.
    (tmp_path / f"a{ending}").write_bytes(pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :]))
    documents, rejected = read(tmp_path)
    assert [document.text for document in documents] == [f"Row {number}." for number in range(5000)]
    # In bytes of the unpacked file.
    assert (documents[9].ordinal, documents[9].start, documents[9].end) == (9, 9 * 19, 10 * 19)
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
    where = f"its compressed data break off, after line {len(documents)}; the rows before that are kept"
    # Half a row may have been unpacked: it is accounted for.
    assert (rejected[0].reason, rejected[0].start) == (where, documents[-1].end)
    assert 0 <= rejected[0].bytes < 80


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
    assert rejected[0].reason.startswith("its compressed data are damaged (")
    assert rejected[0].reason.endswith("after line 0; the rows before that are kept")


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    assert one(tmp_path, b"") == ([], [Rejected("a.jsonl", "it is empty", rule="empty")])


def test_a_line_of_more_than_128_mib_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    # Not all x: what grows to more than 200 times its size is taken for a bomb.
    line = b'{"text": "' + random.Random(0).randbytes(2**20).hex().encode() * 65 + b'"}\n'
    after = rows({"text": "After."})
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(line + after, 1))
    size = len(line)
    del line
    tracemalloc.start()
    try:
        documents, rejected = read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
    assert [document.text for document in documents] == ["After."]
    assert rejected == [Rejected("a.jsonl.zst", "line 1: a line of more than 128 MiB", size)]


def test_a_hundred_thousand_rows_are_read_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows({"text": "x" * 60}) * 100_000, 1))
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(files.build(str(tmp_path), files.Options()).documents(), 20_000)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["licence", "license"])
def test_a_row_may_name_its_licence(tmp_path: Path, key: str) -> None:
    documents, _ = one(tmp_path, rows({"text": "a", key: "CC-BY-4.0", "url": "x"}, {"text": "b", key: 7}))
    assert [document.licence for document in documents] == ["CC-BY-4.0", None]


def test_a_row_in_the_encoding_of_an_older_system_is_read_and_counted(tmp_path: Path) -> None:
    text = "La théorie étudie les phénomènes aléatoires, où l'été est très agréable."
    line = json.dumps({"text": text}, ensure_ascii=False).encode("latin-1") + b"\n"
    documents, rejected = one(tmp_path, rows({"text": "Größe"}) + line)
    assert [document.text for document in documents] == ["Größe", text]
    assert (documents[1].counts, rejected) == ((("decoded_from_cp1252", 1),), [])
    assert one(tmp_path, line, mend_encoding=False)[1][0].reason == "line 1: byte 16 of the line is not UTF-8"


def test_mojibake_in_rows_and_dialogs_is_mended_and_counted(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "cafÃ©?"}, {"role": "assistant", "content": "x² â‰¤ 10⁻³"}]
    documents, _ = one(tmp_path, rows({"text": "cafÃ©"}, {"messages": messages}))
    assert (documents[0].text, documents[0].counts) == ("café", (("mended_characters", 2),))
    assert documents[1].messages == (("user", "café?"), ("assistant", "x² ≤ 10⁻³"))
    assert one(tmp_path, rows({"text": "cafÃ©"}), mend_encoding=False)[0][0].text == "cafÃ©"


def test_rows_in_utf16_are_refused_with_the_remedy(tmp_path: Path) -> None:
    contents = rows({"text": "a"}).decode().encode("utf-16")
    documents, rejected = one(tmp_path, contents)
    assert documents == []
    assert rejected[0].reason.startswith("it is UTF-16-LE, and rows are read as UTF-8; save it as UTF-8")
    assert rejected[0].bytes == len(contents)


def test_a_file_is_cut_after_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "b"}\n{"text": "c"}')
    reader, item = build(Options()), Input("a.jsonl", path)
    assert [reader.boundary(item, near) for near in (1, 13, 14, 30)] == [14, 14, 28, 41]
    path.write_bytes("x\ny".encode("utf-16"))
    assert reader.boundary(item, 3) is None


def test_a_range_names_its_lines_by_their_first_byte_and_its_ordinals_meet_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n[]\n{"text": "b"}\n')
    assert list(build(Options()).read((Input("a.jsonl", path, start=14),))) == [
        Rejected("a.jsonl", "line at byte 14: the line is a list, not an object", 3, 14),
        Document("a.jsonl", "b", ordinal=14, start=17, end=31),
    ]


def test_a_reader_alone_raises_where_the_data_break_off(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(rows({"text": "a"}))[:-4])
    items = build(Options()).read((Input("a.jsonl.gz", path, ("gz",)),))
    assert next(items) == Document("a.jsonl.gz", "a", end=14)
    with pytest.raises(InputError, match=r"break off, after line 1; the rows before that are kept"):
        next(items)
