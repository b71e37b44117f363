import csv
import gzip
import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import MissingPackageError
from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers import table
from havoc_data.readers.table import Options, build

LONG = "A text of some length that says one thing after another about bases and ranks. " * 4


def read(path, content, name="table.csv", **options):
    """All that the reader makes of a table; the ranges are checked on the way."""
    file = Path(path) / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    items = list(build(Options(**options)).read((Input(origin=name, path=file),)))
    covered(items, name, file.stat().st_size)
    return items


def covered(items, name, size):
    place = 0
    for item in items:
        assert item.origin == name and item.start == place <= item.end
        place = item.end
    assert place == size
    documents = [item for item in items if isinstance(item, Document)]
    assert [document.ordinal for document in documents] == list(range(len(documents)))


def parquet(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, row_group_size=3)
    return file.getvalue()


def test_every_row_has_its_own_bytes_and_the_header_goes_with_the_first(tmp_path):
    content = 'id,text\r\n1,"one, two\r\n""three"""\r\n\r\n2,x²\r\n\r\n'
    first, second = read(tmp_path, content)
    assert first.text == 'one, two\n"three"' and second.text == "x²"
    raw = content.encode()
    assert raw[first.start : first.end] == b'id,text\r\n1,"one, two\r\n""three"""\r\n'
    assert raw[second.start : second.end] == "\r\n2,x²\r\n\r\n".encode()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_all_line_ends_are_understood(end, tmp_path):
    items = read(tmp_path, f'text,n{end}a,1{end}"b{end}c",2{end}d,3')
    assert [item.text for item in items] == ["a", "b\nc", "d"]


def test_ragged_rows_are_named_and_the_others_kept(tmp_path):
    items = read(tmp_path, "id,text\n1,one\n2,two,more\n3\n4,four\n")
    assert [getattr(item, "text", None) for item in items] == ["one", None, None, "four"]
    assert items[1].reason == "row 2: 3 fields, the header has 2" and items[1].bytes == len("2,two,more\n")
    assert items[2].reason == "row 3: 1 fields, the header has 2"


def test_an_empty_cell_is_named(tmp_path):
    items = read(tmp_path, 'id,text\n1,\n2," "\n3,c\n')
    assert [item.rule for item in items[:2]] == ["no_text", "no_text"] and items[2].text == "c"
    assert items[0].reason == "row 1: its text is empty"


def test_a_quote_in_the_wrong_place_costs_its_row_only(tmp_path):
    items = read(tmp_path, 'id,text\n1,"abc" def\n2,two\n')
    assert "row 1: ',' expected after '\"'; is a quote missing" in items[0].reason
    assert items[1].text == "two"


def test_a_quote_that_is_never_closed_is_named_with_the_rest_of_the_file(tmp_path):
    content = 'id,text\n1,one\n2,"two\n3,three\n4,four\n'
    first, rest = read(tmp_path, content)
    assert first.text == "one" and "row 2" in rest.reason and "never closed" in rest.reason
    assert content[rest.start : rest.end] == '2,"two\n3,three\n4,four\n'


def test_a_quote_that_is_never_closed_swallows_no_more_than_the_limit(tmp_path):
    line = "x" * 1023 + "\n"
    content = 'text\n"' + line * (table.FIELD_CHARACTERS // 1024 + 100)
    items = read(tmp_path, content)
    assert "field larger than field limit" in items[0].reason
    assert items[0].bytes <= table.FIELD_CHARACTERS + 2048
    assert len(items) > 90 and all(isinstance(item, Document) for item in items[1:])


def test_a_field_of_a_megabyte_is_read_and_the_limit_of_the_csv_module_put_back(tmp_path):
    before = csv.field_size_limit()
    items = read(tmp_path, "id,text\n1," + "word " * 200_000 + "\n2,b\n")
    assert len(items) > 10 and items[-1].text == "b" and csv.field_size_limit() == before
    assert "".join(item.text for item in items[:-1]) == "word " * 200_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id;text\n1;one, two\n2;three\n"),
        ("a.csv", "id\ttext\n1\tone, two\n2\tthree\n"),
        ("a.csv", "id|text\n1|one, two\n2|three\n"),
        ("a.tsv", "id\ttext\n1\tone, two\n2\tthree\n"),
        ("a.csv", 'id,text\n1,"one, two"\n2,three\n'),
    ],
)
def test_the_delimiter_is_found(name, content, tmp_path):
    assert [item.text for item in read(tmp_path, content, name)] == ["one, two", "three"]


def test_a_single_column_of_prose_is_not_cut_at_its_commas(tmp_path):
    items = read(tmp_path, 'text\n"one, two"\nthree; four\n')
    assert [item.text for item in items] == ["one, two", "three; four"]


def test_what_looks_like_a_formula_is_text(tmp_path):
    items = read(tmp_path, "text\n=1+2\n@SUM(A1)\n")
    assert [item.text for item in items] == ["=1+2", "@SUM(A1)"]


def test_the_column_and_the_licence_can_be_named(tmp_path):
    items = read(tmp_path, "body,text,spdx\na,b,MIT\nc,d,\n", column="body", licence_column="spdx")
    assert [(item.text, item.licence) for item in items] == [("a", "MIT"), ("c", None)]


def test_content_is_taken_where_there_is_no_text(tmp_path):
    assert [item.text for item in read(tmp_path, "n,content\n1,a\n")] == ["a"]


def test_the_only_column_of_long_texts_is_taken_and_said_so(tmp_path):
    items = read(tmp_path, f"id,name,body\n1,x,{LONG}\n2,y,{LONG}\n")
    assert items[0].text == LONG and items[0].counts == (("column_guessed", 1),) and not items[1].counts


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("id,name\n1,x\n", "no column holds long texts"),
        (f"one,two\n{LONG},{LONG}\n", "2 columns hold long texts"),
    ],
)
def test_a_table_whose_column_is_not_clear_is_refused_with_its_columns(content, what, tmp_path):
    (item,) = read(tmp_path, content)
    names = ", ".join(map(repr, content.split("\n")[0].split(",")))
    assert isinstance(item, Rejected) and what in item.reason and f"It has {names}" in item.reason
    assert "reader_options: {table: {column: ...}}" in item.reason


def test_a_named_column_that_is_missing_is_answered_with_those_there_are(tmp_path):
    for name, content in (("a.csv", "id,text\n1,x\n"), ("a.parquet", parquet(id=["1"], text=["x"]))):
        (item,) = read(tmp_path, content, name, column="body")
        assert "there is no column 'body'; it has 'id', 'text'" in item.reason
        (item,) = read(tmp_path, content, name, licence_column="spdx")
        assert "there is no column 'spdx'" in item.reason and "licence_column" in item.reason


def test_dialogs_are_not_read_from_csv(tmp_path):
    (item,) = read(tmp_path, 'messages\n"[{""role"": ""user""}]"\n')
    assert isinstance(item, Rejected) and ".jsonl and .parquet" in item.reason


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "it is empty"), (b"\n\n", "blank lines"), (b"text\n", "no rows")]
)
def test_a_table_without_rows_is_named(content, reason, tmp_path):
    (item,) = read(tmp_path, content)
    assert item.rule == "no_text" and reason in item.reason


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_other_encodings_are_read(encoding, tmp_path):
    text = "Größe und Maß, Übung für Anfänger: die Lösung ist schön und natürlich gut"
    items = read(tmp_path, f'id,text\n1,"{text}"\n2,"{text}"\n'.encode(encoding))
    assert [item.text for item in items] == [text, text]
    if encoding != "utf-16":  # there only the shares are known
        assert items[1].end - items[1].start == len(f'2,"{text}"\n'.encode(encoding.removesuffix("-sig")))


def test_bytes_that_are_no_text_are_named(tmp_path):
    (item,) = read(tmp_path, bytes(range(256)) * 20)
    assert isinstance(item, Rejected)


def test_the_rows_before_a_broken_compression_are_kept(tmp_path):
    rows = "".join(f"{number},line {number * 7919 % 10007} of text\n" for number in range(20_000))
    packed = gzip.compress(f"id,text\n{rows}".encode())
    file = tmp_path / "a.csv.gz"
    file.write_bytes(packed[: len(packed) // 2])
    items = []
    with pytest.raises(InputError):
        for item in build(Options()).read((Input(origin="a.csv.gz", path=file, packing=("gz",)),)):
            items.append(item)
    assert len(items) > 1000 and items[5].text == f"line {5 * 7919 % 10007} of text"
    assert all(one.end == two.start for one, two in zip(items[:-1], items[1:], strict=True))


def test_parquet_rows_share_the_bytes_of_the_file(tmp_path):
    items = read(
        tmp_path,
        parquet(id=[1, 2, 3, 4], text=["short", "x² " * 50, None, " "], lic=["MIT"] * 4),
        "a.parquet",
        licence_column="lic",
    )
    assert [getattr(item, "text", None) for item in items] == ["short", "x² " * 50, None, None]
    assert items[0].licence == "MIT" and [item.rule for item in items[2:]] == ["no_text", "no_text"]
    assert items[2].reason == "row 3: its text is empty"
    assert items[1].end - items[1].start > items[0].end - items[0].start


def test_a_long_parquet_text_is_cut_into_sections(tmp_path):
    items = read(tmp_path, parquet(text=["word " * 100_000, "b"]), "a.parquet")
    assert len(items) > 5 and items[-1].text == "b"


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_texts_of_every_kind_are_read(kind, tmp_path):
    values = (
        pa.array(["a\r\nb", "c"]).cast(kind)
        if not pa.types.is_dictionary(kind)
        else pa.array(["a\r\nb", "c"]).dictionary_encode()
    )
    assert [item.text for item in read(tmp_path, parquet(text=values), "a.parquet")] == ["a\nb", "c"]


def test_bytes_that_are_not_utf8_are_counted(tmp_path):
    (item,) = read(tmp_path, parquet(text=pa.array([b"a\xffb"], pa.binary())), "a.parquet")
    assert item.text == "a\ufffdb" and item.counts == (("invalid_bytes", 1),)


def test_dialogs_are_read_from_parquet(tmp_path):
    dialog = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    odd = [{"role": "robot", "content": "hm"}]
    items = read(tmp_path, parquet(messages=[dialog, odd, [], [{"role": "user", "content": None}]]), "a.parquet")
    assert items[0].messages == (("user", "1+1?"), ("assistant", "2")) and items[0].text == ""
    assert "row 2: message 1 has the role 'robot'" in items[1].reason
    assert items[2].rule == "no_text" and "row 4: message 1 lacks" in items[3].reason


def test_a_column_of_numbers_is_refused(tmp_path):
    (item,) = read(tmp_path, parquet(text=[1, 2]), "a.parquet")
    assert item.reason == "column 'text' holds int64, neither text nor messages"


def test_the_only_long_column_of_parquet_is_taken(tmp_path):
    items = read(tmp_path, parquet(name=["a", "b"], body=[LONG, LONG]), "a.parquet")
    assert [item.text for item in items] == [LONG, LONG] and items[0].counts == (("column_guessed", 1),)


def test_parquet_without_rows_is_named(tmp_path):
    (item,) = read(tmp_path, parquet(text=pa.array([], pa.string())), "a.parquet")
    assert item.rule == "no_text"


@pytest.mark.parametrize("damage", ["footer", "truncated", "other", "empty"])
def test_damaged_parquet_is_named(damage, tmp_path):
    whole = parquet(text=["a" * 300, "b" * 300])
    content = {"footer": whole[:-20] + b"x" * 20, "truncated": whole[:-50], "other": b"id,text\n1,2\n", "empty": b""}[
        damage
    ]
    (item,) = read(tmp_path, content, "a.parquet")
    assert isinstance(item, Rejected) and item.rule == "unreadable" and "no Parquet file, or damaged" in item.reason


def test_rows_before_a_damaged_page_are_kept(tmp_path):
    file = io.BytesIO()
    texts = [f"{number} {number * 7919 % 10007} " * 40 for number in range(3000)]
    pq.write_table(pa.table({"text": texts}), file, row_group_size=600, use_dictionary=False)
    whole = bytearray(file.getvalue())
    middle = len(whole) // 2
    whole[middle : middle + 3000] = b"\xff" * 3000
    items = read(tmp_path, bytes(whole), "a.parquet")
    assert sum(isinstance(item, Document) for item in items) >= 600 and items[0].text == texts[0]
    assert isinstance(items[-1], Rejected) and "damaged after row" in items[-1].reason


def test_without_pyarrow_csv_is_read_and_parquet_answered_with_the_install_command(tmp_path):
    (tmp_path / "a.csv").write_text("text\nhello\n", encoding="utf-8")
    (tmp_path / "a.parquet").write_bytes(parquet(text=["a"]))
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\n"
        "from havoc_data.inputs import Input\n"
        "from havoc_data.readers import table\n"
        "reader = table.build(table.Options())\n"
        "items = [Input(origin=n, path=Path(sys.argv[1]) / n) for n in ('a.csv', 'a.parquet')]\n"
        "print(next(reader.read((items[0],))).text)\n"
        "for ask in (lambda: reader.units(items), lambda: list(reader.read((items[1],)))):\n"
        "    try: ask()\n"
        "    except Exception as error: print(type(error).__name__, error.where, error.found, error.remedy, sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    hello, *errors = done.stdout.splitlines()
    assert hello == "hello" and len(errors) == 2
    for error in errors:
        kind, where, found, remedy = error.split("|")
        assert kind == MissingPackageError.__name__ and where == "reading .parquet files"
        assert "pyarrow cannot be imported" in found and remedy == "Install it: pip install 'havoc[formats]'."


def test_a_table_is_never_cut(tmp_path):
    item = Input(origin="a.csv", path=tmp_path / "a.csv")
    reader = build(Options())
    assert reader.boundary(item, 10) is None and reader.units([item, item]) == [(item,), (item,)]


@given(st.text(alphabet='ab,;"\n\r\t é', max_size=120))
@settings(max_examples=100, deadline=None)
def test_any_csv_is_accounted_for(tmp_path_factory, content):
    read(tmp_path_factory.mktemp("any"), "id,text\n" + content)
    read(tmp_path_factory.mktemp("any"), content)


@given(st.lists(st.tuples(st.text("ab\"', \n\r²", max_size=20), st.text('xy,\n"', max_size=20)), max_size=8))
@settings(max_examples=60, deadline=None)
def test_what_the_csv_module_wrote_is_read_back(tmp_path_factory, rows):
    target = io.StringIO(newline="")
    csv.writer(target).writerows([("n", "text"), *rows])
    items = read(tmp_path_factory.mktemp("any"), target.getvalue())
    expected = [second.replace("\r\n", "\n").replace("\r", "\n") for _, second in rows]
    assert [item.text for item in items if isinstance(item, Document)] == [text for text in expected if text.strip()]


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_accounted_for(tmp_path_factory, content):
    read(tmp_path_factory.mktemp("any"), content)
    read(tmp_path_factory.mktemp("any"), content, "a.parquet")
