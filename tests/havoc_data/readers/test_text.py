from __future__ import annotations

import codecs
import itertools
import random
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers.text import Options, build
from havoc_data.sources import text_files as files


def read(folder: Path, *, mend_encoding: bool = True) -> tuple[list[Document], list[Rejected]]:
    items = list(files.build(str(folder), files.Options(mend_encoding=mend_encoding)).documents())
    return [item for item in items if isinstance(item, Document)], [
        item for item in items if isinstance(item, Rejected)
    ]


def one(folder: Path, contents: bytes, *, mend_encoding: bool = True) -> tuple[list[Document], list[Rejected]]:
    """What becomes of a file with these contents, beside a good one."""
    (folder / "a.txt").write_bytes(contents)
    (folder / "z.txt").write_text("A good file.", encoding="utf-8")
    documents, rejected = read(folder, mend_encoding=mend_encoding)
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
    documents, rejected = one(
        tmp_path, b"caf\xe9 and na\xefve people, and much more text \xff\xfe here", mend_encoding=False
    )
    assert documents[0].text == "caf\ufffd and na\ufffdve people, and much more text \ufffd\ufffd here"
    assert (documents[0].counts, rejected) == ((("invalid_bytes", 4),), [])


def test_a_replacement_character_of_the_author_is_not_counted(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, "This \ufffd is meant.".encode())
    assert (documents[0].counts, rejected) == ((), [])


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
        raw = data[document.start : document.end].removeprefix(mark if document.start == 0 else b"")
        assert raw.decode(encoding).replace("\r\n", "\n") == document.text
    # The mark belongs to the first document, so that every byte belongs to one.
    assert (documents[0].start, documents[-1].end) == (0, len(mark) + len(text) * width)


def test_half_a_character_at_the_end_of_a_utf16_file_stays_inside_the_file(tmp_path: Path) -> None:
    documents, _ = one(tmp_path, codecs.BOM_UTF16_LE + "Text".encode("utf-16-le") + b"x")
    assert (documents[0].text, documents[0].end) == ("Text\ufffd", 11)
    assert documents[0].counts == (("invalid_bytes", 1),)


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


def test_latin_1_german_that_is_not_to_be_mended_is_damaged_text_and_not_a_binary_file(tmp_path: Path) -> None:
    text = "Über die Größe der Bäume läßt sich streiten, für und wider."
    documents, rejected = one(tmp_path, text.encode("latin-1"), mend_encoding=False)
    assert "die Gr\ufffd\ufffde der B\ufffdume" in documents[0].text
    assert (documents[0].counts, rejected) == ((("invalid_bytes", 7),), [])
    assert one(tmp_path, text.encode("latin-1"))[0][0].text == text


def test_russian_in_one_byte_that_is_not_to_be_mended_is_refused(tmp_path: Path) -> None:
    documents, rejected = one(tmp_path, "Съешь же ещё этих мягких булок".encode("cp1251"), mend_encoding=False)
    assert documents == []
    assert "are not UTF-8: no text, or another encoding" in rejected[0].reason


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("La théorie étudie les phénomènes aléatoires, où l’été est très agréable.", "cp1252"),
        ("Twierdzenie mówi, że każda funkcja ciągła osiąga swoje kresy na przedziale.", "cp1250"),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю.", "cp1251"),
        ("これは日本語の文章です。数学と統計を学びます。", "shift_jis"),
        ("The error is ± 0.5 µm at 20 °C, with x² and ½ of it.", "cp1252"),
    ],
)
def test_the_encoding_of_an_older_system_is_found_and_counted(tmp_path: Path, text: str, encoding: str) -> None:
    documents, rejected = one(tmp_path, f"{text}\r\n".encode(encoding) * 30)
    assert documents[0].text == f"{text}\n" * 30
    assert (documents[0].counts, rejected) == (((f"decoded_from_{encoding}", 1),), [])


def test_lines_of_two_encodings_in_one_file_are_each_read_in_their_own(tmp_path: Path) -> None:
    new, old = "Größe in UTF-8: 10⁻³ und x².\n", "Größe in einem Byte, für Übungen über Maße.\n"
    contents = (new.encode() + old.encode("latin-1")) * 40
    documents, rejected = one(tmp_path, contents)
    assert documents[0].text == (new + old) * 40
    assert rejected == []


def test_a_stray_byte_in_utf8_does_not_turn_its_line_into_another_encoding(tmp_path: Path) -> None:
    documents, _ = one(tmp_path, "Größe, Länge, Maß".encode() + b"\xe9" + b" und mehr.\n")
    assert documents[0].text == "Größe, Länge, Maß\ufffd und mehr.\n"
    assert documents[0].counts == (("invalid_bytes", 1),)


def test_mojibake_is_mended_and_mathematics_is_not_touched(tmp_path: Path) -> None:
    contents = "The cafÃ© isnâ€™t closed.\n10⁻³ m², ½ ≤ ﬁ ∂²u/∂x² ‖·‖ e\u0301\n"
    documents, _ = one(tmp_path, contents.encode())
    assert documents[0].text == "The café isn’t closed.\n10⁻³ m², ½ ≤ ﬁ ∂²u/∂x² ‖·‖ e\u0301\n"
    assert documents[0].counts == (("mended_characters", 5),)
    assert one(tmp_path, contents.encode(), mend_encoding=False)[0][0].text == contents


def test_front_matter_of_a_page_is_left_out_of_the_text_and_stays_in_the_range(tmp_path: Path) -> None:
    front = "---\ntitle: A page\ntags:\n  - x\n---\n"
    contents = (front + "# Here it begins\n").encode()
    for name in ("a.md", "a.txt"):
        (tmp_path / name).write_bytes(contents)
    (tmp_path / "rule.md").write_text("---\nNo front matter, a rule.\n---\n", encoding="utf-8")
    (tmp_path / "z.md").write_bytes(front.encode())
    documents, rejected = read(tmp_path)
    assert documents == [
        Document("a.md", "# Here it begins\n", end=len(contents), counts=(("front_matter_bytes", len(front)),)),
        Document("a.txt", contents.decode(), end=len(contents)),
        Document("rule.md", "---\nNo front matter, a rule.\n---\n", end=33),
    ]
    assert rejected == [Rejected("z.md", "front matter and nothing else", len(front), rule="empty")]


def test_words_that_stand_for_special_tokens_are_text_like_any_other(tmp_path: Path) -> None:
    contents = "Before <|endoftext|> and <s> after </s> [INST] \u202e it.\n"
    assert one(tmp_path, contents.encode())[0][0].text == contents


@pytest.mark.parametrize(
    ("contents", "near", "cut"),
    [
        (b"one\ntwo\n\nthree\n", 2, 9),
        (b"one\r\ntwo\r\n \r\nthree\r\n", 2, 13),
        (b"one\ntwo\nthree", 5, 8),
        ("eineZeileohneEndeäöü".encode(), 18, 19),
        (b"one line", 3, 3),
        ("one\n\ntwo".encode("utf-16"), 4, None),
        (b"%PDF-1.4\n\n", 4, None),
    ],
)
def test_a_file_is_cut_after_a_paragraph_else_a_line_else_a_character(
    tmp_path: Path, contents: bytes, near: int, cut: int | None
) -> None:
    (tmp_path / "a.txt").write_bytes(contents)
    assert build(Options()).boundary(Input("a.txt", tmp_path / "a.txt"), near) == cut


def test_a_paragraph_that_ends_more_than_a_mebibyte_away_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 10 + b"\n" + b"y" * 2**20 + b"\n\nz")
    assert build(Options()).boundary(Input("a.txt", tmp_path / "a.txt"), 5) == 11


def test_the_ordinals_of_two_ranges_of_a_file_never_meet(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"First.\n\nSecond.\n")
    reader = build(Options())
    path = tmp_path / "a.txt"
    pieces = [Input("a.txt", path, end=8), Input("a.txt", path, start=8)]
    assert [item for piece in pieces for item in reader.read((piece,))] == [
        Document("a.txt", "First.\n\n", end=8),
        Document("a.txt", "Second.\n", ordinal=8, start=8, end=16),
    ]


def test_a_range_is_read_in_the_encoding_of_the_whole_file(tmp_path: Path) -> None:
    """Alone, the one word of the second range could be of any language."""
    text = "Twierdzenie mówi, że każda funkcja ciągła osiąga swoje kresy.\n\n"
    data = (text * 50 + "Łódź\n").encode("cp1250")
    (tmp_path / "a.txt").write_bytes(data)
    (document,) = build(Options()).read((Input("a.txt", tmp_path / "a.txt", start=len(data) - 5),))
    assert isinstance(document, Document)
    assert document.text == "Łódź\n"


def test_a_reader_alone_says_with_an_error_that_a_file_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"GIF89a")
    with pytest.raises(InputError, match=r"it is a GIF image, whatever its name says; convert it to text"):
        list(build(Options()).read((Input("a.txt", tmp_path / "a.txt"),)))


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


def test_options_are_frozen_and_know_no_other_key() -> None:
    with pytest.raises(ValidationError):
        Options.model_validate({"patern": "x"})
    with pytest.raises(ValidationError):
        Options().mend_encoding = False
