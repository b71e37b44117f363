"""Files that include one another: `_tex_tree`, seen through the reader."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import pytest

from havoc_data.document import Document, Rejected
from havoc_data.inputs import Input, InputError
from havoc_data.readers.tex import Options, build


def inputs(folder: Path, files: Mapping[str, str | bytes]) -> list[Input]:
    """Files written to a folder, in the order given. In "a.zip!/b.tex" the archive is a folder: only names count here."""
    items = []
    for name, contents in files.items():
        path = folder / name.replace("!", "_")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        items.append(Input(name, path))
    return items


def items_of(folder: Path, files: Mapping[str, str]) -> list[Document | Rejected]:
    reader = build(Options())
    return [item for unit in reader.units(inputs(folder, files)) for item in reader.read(unit)]


def units(folder: Path, files: Mapping[str, str]) -> list[list[str]]:
    return [[item.origin for item in unit] for unit in build(Options()).units(inputs(folder, files))]


def test_included_files_stand_where_their_commands_stood(tmp_path: Path) -> None:
    main, one_, two = (
        "Start.\n\\input{c/one}\nMiddle.\n\\include{c/two.tex}\nEnd.\n",
        "One.\n",
        "Two: \\input{three}.\n",
    )
    files = {"c/one.tex": one_, "main.tex": main, "c/two.tex": two, "c/three.tex": "Three"}
    (document,) = items_of(tmp_path, files)
    assert isinstance(document, Document)
    assert document.text == "Start.\nOne.\n\nMiddle.\nTwo: Three\n.\n\nEnd.\n"
    assert document.origin == "main.tex"
    assert [span.origin for span in document.includes] == ["c/one.tex", "c/two.tex", "c/three.tex"]


@pytest.mark.parametrize(
    "command",
    [
        "\\input{c/x}", "\\input c/x ", "\\include{c/x.tex}", "\\subfile{c/x}", "\\import{c/}{x}", "\\import{c}{x.tex}",
        "\\subimport{c}{x}", "\\input {\"c/x\"}", "\\input{./c/../c/x}", "\\import*{c}{x}",
    ],
)  # fmt: skip
def test_every_command_that_reads_a_file_is_known(tmp_path: Path, command: str) -> None:
    (document,) = items_of(tmp_path, {"main.tex": f"A {command}\n", "c/x.tex": "X\n"})
    assert isinstance(document, Document)
    assert document.text.startswith("A X\n")
    assert command not in document.text


@pytest.mark.parametrize(
    "source",
    [
        "\\includegraphics{x}", "% \\input{x}", "\\begin{verbatim}\\input{x}\\end{verbatim}", "\\verb|\\input{x}|",
        "\\newcommand{\\ch}[1]{\\input{#1}}", "\\input{../x}", "\\input{/x}", "\\inputx{x}", "\\input{y/../../x}",
    ],
)  # fmt: skip
def test_what_reads_no_file_of_the_folder_stays(tmp_path: Path, source: str) -> None:
    assert units(tmp_path, {"main.tex": f"A {source}\n", "x.tex": "X"}) == [["main.tex"], ["x.tex"]]


def test_a_name_leads_neither_out_of_an_archive_nor_into_one(tmp_path: Path) -> None:
    files = {
        "b.zip!/main.tex": "\\input{x}\\input{../y}",
        "x.tex": "X",
        "y.tex": "\\input{b.zip!/z}",
        "b.zip!/z.tex": "Z",
    }
    assert units(tmp_path, files) == [["b.zip!/main.tex"], ["x.tex"], ["y.tex"], ["b.zip!/z.tex"]]
    assert units(tmp_path, {"b.zip!/d/m.tex": "\\input{../x}", "b.zip!/x.tex": "X"}) == [
        ["b.zip!/d/m.tex", "b.zip!/x.tex"]
    ]


def test_names_are_looked_for_from_the_roots_folder_as_tex_does(tmp_path: Path) -> None:
    """The chapter names its section from the folder of the book, and a file of that name lies beside the chapter too."""
    files = {"book.tex": "\\input{ch/a}", "ch/a.tex": "\\input{ch/b}", "ch/b.tex": "right", "ch/ch/b.tex": "wrong"}
    assert units(tmp_path, files) == [["book.tex", "ch/a.tex", "ch/b.tex"], ["ch/ch/b.tex"]]


def test_a_chapter_finds_its_sections_though_the_book_reads_it_by_a_macro(tmp_path: Path) -> None:
    files = {"book.tex": "\\ch{a}", "ch/a.tex": "\\input{ch/b}", "ch/b.tex": "B"}
    assert units(tmp_path, files) == [["book.tex"], ["ch/a.tex", "ch/b.tex"]]


def test_compressed_files_are_found_by_the_names_they_have_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x.tex.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "m.tex").write_text("\\input{x}")
    unit = (Input("m.tex", tmp_path / "m.tex"), Input("x.tex.gz", tmp_path / "x.tex.gz", ("gz",)))
    reader = build(Options())
    assert reader.units(unit) == [unit]
    (document,) = reader.read(unit)
    assert isinstance(document, Document)
    assert document.text == "packed"
    assert [(span.origin, span.end) for span in document.spans] == [("m.tex", 9), ("x.tex.gz", 6)]


def test_of_a_circle_the_first_is_the_root_and_the_last_command_stays(tmp_path: Path) -> None:
    files = {"x.tex": "X", "a.tex": "A \\input{b}", "b.tex": "B \\input{a} \\input{x}"}
    assert units(tmp_path, files) == [["a.tex", "b.tex", "x.tex"]]
    (document,) = items_of(tmp_path, files)
    assert isinstance(document, Document)
    assert document.text == "A B \\input{a} X"
    assert units(tmp_path, {"self.tex": "\\input{self}"}) == [["self.tex"]]


def test_a_file_that_two_roots_include_belongs_to_the_first(tmp_path: Path) -> None:
    found = items_of(tmp_path, {"c.tex": "C", "m.tex": "M \\input{c}", "n.tex": "N \\input{c} \\input{gone}"})
    assert [item.text for item in found if isinstance(item, Document)] == ["M C", "N \\input{c} \\input{gone}"]


def test_a_file_that_is_read_twice_stands_once(tmp_path: Path) -> None:
    (document,) = items_of(tmp_path, {"m.tex": "\\input{c} and \\input{c}", "c.tex": "C"})
    assert isinstance(document, Document)
    assert document.text == "C and \\input{c}"


def test_an_included_file_without_text_is_rejected_and_the_rest_is_read(tmp_path: Path) -> None:
    document, rejected = items_of(tmp_path, {"m.tex": "M \\input{c}.", "c.tex": "% nothing"})
    assert isinstance(document, Document)
    assert isinstance(rejected, Rejected)
    assert (document.text, rejected.origin, rejected.bytes) == ("M .", "c.tex", 9)


def test_a_subfile_leaves_its_own_preamble_out(tmp_path: Path) -> None:
    sub = "\\documentclass[m]{subfiles}\\begin{document}Sub.\\end{document}"
    (document,) = items_of(tmp_path, {"m.tex": "M \\subfile{s}", "s.tex": sub})
    assert isinstance(document, Document)
    assert document.text == "M Sub."
    assert dict(document.counts) == {"preamble_bytes": len(sub) - 4}


def test_a_style_file_that_only_the_preamble_reads_is_a_text_of_its_own(tmp_path: Path) -> None:
    files = {"m.tex": "\\input{s}\\begin{document}M\\end{document}", "s.tex": "\\newcommand{\\R}{R}"}
    assert units(tmp_path, files) == [["m.tex"], ["s.tex"]]


def test_a_file_that_cannot_be_read_stands_alone(tmp_path: Path) -> None:
    items = inputs(tmp_path, {"m.tex": "M \\input{c}", "c.tex": "C", "d.tex": b"%PDF-1.7 \\input{c}"})
    gone = Input("gone.tex", tmp_path / "gone.tex")
    reader = build(Options())
    assert [len(unit) for unit in reader.units([gone, *items])] == [1, 2, 1]
    with pytest.raises(InputError, match="cannot be read"):
        list(reader.read((gone,)))
    with pytest.raises(InputError, match="it is a PDF"):
        list(reader.read((items[2],)))


def test_a_file_is_never_cut_in_two(tmp_path: Path) -> None:
    (item,) = inputs(tmp_path, {"a.tex": "x"})
    assert build(Options()).boundary(item, 1) is None


def test_a_chain_of_1500_files_is_followed_without_recursion(tmp_path: Path) -> None:
    files = {f"f{number}.tex": f"{number} \\input{{f{number + 1}}}\n" for number in range(1500)}
    (document,) = items_of(tmp_path, files)
    assert isinstance(document, Document)
    assert len(document.includes) == 1499
    assert "\\input{f1500}" in document.text
