from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers.notebook import Options, build


def read(folder: Path, contents: Any) -> list[Document | Rejected]:
    path = folder / "a.ipynb"
    path.write_bytes(contents if isinstance(contents, bytes) else json.dumps(contents).encode())
    reader, item = build(Options()), Input("a.ipynb", path)
    assert reader.units([item]) == [(item,)]
    found = list(reader.read((item,)))
    position = 0
    for each in found:  # the ranges lie side by side and cover the file
        assert each.start == position <= each.end
        position = each.end
    assert position == path.stat().st_size
    return found


def one(folder: Path, *cells: dict[str, Any], metadata: Any = None) -> Document:
    (document,) = read(folder, {"nbformat": 4, "metadata": metadata or {}, "cells": cells})
    assert isinstance(document, Document), document
    return document


def refused(folder: Path, contents: Any) -> Rejected:
    (rejected,) = read(folder, contents)
    assert isinstance(rejected, Rejected), rejected
    assert rejected.bytes == (folder / "a.ipynb").stat().st_size
    return rejected


def markdown(source: Any, **more: Any) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, **more}


def code(source: Any, *outputs: Any) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": outputs}


def test_cells_become_markdown_with_code_in_fences_and_what_it_printed(tmp_path: Path) -> None:
    document = one(
        tmp_path,
        markdown(["# Title\n", "with $x$"]),
        code("print(1)\n1 + 1", {"output_type": "stream", "name": "stdout", "text": ["1\n"]},
             {"output_type": "execute_result", "data": {"text/plain": ["2"]}}),
        {"cell_type": "raw", "source": "raw"},
        code(" \n"),
        markdown(""),
    )  # fmt: skip
    assert document.text == "# Title\nwith $x$\n\n```python\nprint(1)\n1 + 1\n```\n\n```\n1\n2\n```\n\nraw"
    assert document.counts == ()


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"language_info": {"name": "R"}}, "R"),
        ({"kernelspec": {"language": "julia"}}, "julia"),
        ({"language_info": {"name": "a\nb"}}, "python"),
        ({"language_info": 3}, "python"),
        (None, "python"),
    ],
)
def test_the_language_of_code_is_that_of_the_notebook(tmp_path: Path, metadata: Any, language: str) -> None:
    assert one(tmp_path, code("x"), metadata=metadata).text == f"```{language}\nx\n```"


def test_nbformat_3_is_read(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Head"]},
        {"cell_type": "code", "language": "ruby", "input": ["x"], "outputs": [
            {"output_type": "pyout", "text": ["5"]},
            {"output_type": "display_data", "png": "iVBORw0KGgo=", "text": "<Figure>"},
            {"output_type": "pyerr", "ename": "E", "evalue": "bad", "traceback": ["long"]}]},
    ]  # fmt: skip
    (document,) = read(tmp_path, {"nbformat": 3, "worksheets": [{"cells": cells}]})
    assert isinstance(document, Document)
    assert document.text == "## Head\n\n```ruby\nx\n```\n\n```\n5\nE: bad\n```"
    assert document.counts == (("outputs_left_out", 1),)


def test_pictures_and_html_are_left_out_and_counted(tmp_path: Path) -> None:
    document = one(
        tmp_path,
        code("x", {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}},
             {"output_type": "execute_result", "data": {"text/html": "<table>", "text/plain": "  a\n0 1"}},
             {"output_type": "display_data", "data": {"application/json": {"a": 1}}}),
    )  # fmt: skip
    assert document.text == "```python\nx\n```\n\n```\n  a\n0 1\n```"
    assert document.counts == (("outputs_left_out", 3),)


def test_a_long_output_is_cut_at_2000_characters_and_colours_go(tmp_path: Path) -> None:
    document = one(tmp_path, code("x", {"output_type": "stream", "text": "\x1b[0;31m" + "y" * 3000}))
    assert document.text == "```python\nx\n```\n\n```\n" + "y" * 2000 + "\n```"
    assert document.counts == (("outputs_cut", 1),)


def test_base64_never_comes_into_the_text(tmp_path: Path) -> None:
    secret = "iVBORw0KGgoAAAANSUhEUg" * 50 + "=="
    cell = markdown(
        f"See ![a](data:image/png;base64,{secret}) ![b](attachment:b.png)", attachments={"b.png": {"image/png": secret}}
    )
    document = one(tmp_path, cell)
    assert document.text == "See ![a]() ![b](attachment:b.png)"
    assert document.counts == (("images_left_out", 1),)


def test_code_with_backticks_gets_a_longer_fence(tmp_path: Path) -> None:
    assert one(tmp_path, code('"""```"""')).text == '````python\n"""```"""\n````'


def test_lone_surrogates_and_carriage_returns_are_put_right(tmp_path: Path) -> None:
    assert one(tmp_path, markdown("a\ud800b\r\nc")).text == "a\ufffdb\nc"


def test_a_long_notebook_is_cut_into_sections_that_share_out_its_bytes(tmp_path: Path) -> None:
    cells = [markdown(f"# Part {number}\n\n" + "All happy families are alike.\n\n" * 1000) for number in range(12)]
    documents = read(tmp_path, {"cells": cells})
    assert len(documents) == 6  # of two cells each
    assert [each.ordinal for each in documents if isinstance(each, Document)] == list(range(6))
    assert all(each.text.startswith("# Part") for each in documents if isinstance(each, Document))


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b'{"cells": [', "it is no valid JSON: Expecting value (line 1, column 12)"),
        (b"", "it is no valid JSON"),
        (b"[1, 2]", "no object with cells"),
        (b'"cells"', "no object with cells"),
        (b'{"a": 1}', "it has no list of cells"),
        (b'{"cells": {"a": 1}}', "it has no list of cells"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 100_000 + b"}", "it is no valid JSON"),
    ],
)
def test_what_is_no_notebook_is_rejected_with_the_reason(tmp_path: Path, contents: bytes, reason: str) -> None:
    rejected = refused(tmp_path, contents)
    assert reason in rejected.reason
    assert rejected.rule == "unreadable"


@pytest.mark.parametrize(
    "contents", [{"cells": []}, {"worksheets": []}, {"cells": [markdown(" ")]}, {"cells": [3, None, "x"]}]
)
def test_a_notebook_without_text_is_rejected_as_such(tmp_path: Path, contents: Any) -> None:
    assert refused(tmp_path, contents).rule == "no_text"


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="control characters"):
        read(tmp_path, b"\x01\x02" * 100)


def test_a_notebook_is_never_cut_in_two(tmp_path: Path) -> None:
    assert build(Options()).boundary(Input("a.ipynb", tmp_path / "a.ipynb"), 1) is None


def test_a_hundred_thousand_data_addresses_take_linear_time(tmp_path: Path) -> None:
    assert read(tmp_path, {"cells": [markdown("data:image/png;" * 100_000)]})


KEYS = ("cells", "worksheets", "metadata", "cell_type", "source", "input", "outputs", "output_type", "data", "text",
        "text/plain", "image/png", "level", "language", "language_info", "name", "ename", "evalue")  # fmt: skip
WORDS = st.sampled_from(["code", "markdown", "heading", "stream", "execute_result", "error", "x", "", "```", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inside, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=4), st.lists(VALUES, max_size=3))
def test_any_json_is_a_document_or_a_reject_that_covers_the_file(cells: list[Any], outputs: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for each in read(Path(folder), {"cells": [*cells, code("x", *outputs)], "metadata": {}}):
            assert isinstance(each, Document)
            each.text.encode()
