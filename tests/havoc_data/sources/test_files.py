from __future__ import annotations

import os
from pathlib import Path

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Rejected
from havoc_data.sources._files import (
    Found,
    Patterns,
    find_files,
    needed_path,
    nothing_to_read,
    refuse_path,
)

TEXT_ENDS = (".txt", ".md", ".rst", ".text")


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"The text of {name}.", encoding="utf-8")


def origins(found: Found) -> list[str]:
    return [file.origin for file in found.files]


def test_files_come_in_the_order_of_the_bytes_of_their_paths(tmp_path: Path) -> None:
    put(tmp_path, "b.txt", "a/z.md", "a.txt", "ä.txt", "B.TXT", "a/b/c.rst", "a-1.text")
    found = find_files(tmp_path)
    assert origins(found) == ["B.TXT", "a-1.text", "a.txt", "a/b/c.rst", "a/z.md", "b.txt", "ä.txt"]


def test_a_link_out_of_the_folder_is_named_and_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "outside/secret.txt", "inside/a.txt")
    (tmp_path / "inside/out.txt").symlink_to(tmp_path / "outside/secret.txt")
    (tmp_path / "inside/out").symlink_to(tmp_path / "outside")
    found = find_files(tmp_path / "inside")
    assert origins(found) == ["a.txt"]
    assert [rejected.origin for rejected in found.rejected] == ["out", "out.txt"]
    assert all("leaves the folder" in rejected.reason for rejected in found.rejected)


def test_loops_of_links_end_and_every_file_is_read_once(tmp_path: Path) -> None:
    put(tmp_path, "a/one.txt", "b/two.txt")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/across").symlink_to(tmp_path / "b")
    (tmp_path / "b/across").symlink_to(tmp_path / "a")
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    (tmp_path / "again.txt").symlink_to(tmp_path / "a/one.txt")
    found = find_files(tmp_path)
    assert origins(found) == ["a/one.txt", "b/two.txt"]
    assert [(each.origin, each.reason) for each in found.rejected] == [
        ("self.txt", "a symbolic link that leads nowhere")
    ]


def test_a_link_to_a_hidden_place_inside_is_followed_under_its_own_name(tmp_path: Path) -> None:
    """As git-annex stores files: the visible name is a link into a hidden folder."""
    put(tmp_path, ".store/objects/1.txt", ".store/shelf/2.txt")
    (tmp_path / "book.txt").symlink_to(".store/objects/1.txt")
    (tmp_path / "shelf").symlink_to(".store/shelf")
    found = find_files(tmp_path)
    assert origins(found) == ["book.txt", "shelf/2.txt"]
    # What the links have brought to light is not counted as hidden as well.
    assert [(each.origin, each.bytes) for each in found.rejected] == [(".store", 0)]


def test_hidden_files_and_folders_are_named_and_not_read(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", ".b.txt", ".git/c.txt", ".git/deep/d", ".DS_Store")
    found = find_files(tmp_path)
    assert origins(found) == ["a.txt"]
    assert found.rejected == (
        Rejected(".DS_Store", "hidden file: its name begins with a dot", 22, rule="hidden"),
        Rejected(".b.txt", "hidden file: its name begins with a dot", 19, rule="hidden"),
        Rejected(".git", "hidden folder: its name begins with a dot", 23 + 24, rule="hidden"),
    )


def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    put(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    found = find_files(tmp_path)
    assert origins(found) == ["a.txt"]
    assert found.rejected[0].reason == "it is no regular file"
    with pytest.raises(
        DataError, match=r"pipe.txt: it is neither a folder nor a regular file. Name a folder or a file"
    ):
        find_files(tmp_path / "pipe.txt")


def test_a_name_that_is_no_utf8_is_printable_as_an_origin(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("Bonjour.", encoding="utf-8")
    assert origins(find_files(tmp_path)) == ["caf\\xe9.txt"]


def test_a_single_file_is_taken_whatever_its_name_is(tmp_path: Path) -> None:
    put(tmp_path, "LICENSE", "other.txt")
    assert origins(find_files(tmp_path / "LICENSE")) == ["LICENSE"]


def test_excluded_files_are_named_with_the_pattern_that_fits(tmp_path: Path) -> None:
    put(tmp_path, "a/draft_1.txt", "draft_2.txt", "a/final.txt", "old/x/y.txt", "draft_3.pdf")
    found = find_files(tmp_path, exclude=["**/draft_*", "old"])
    assert origins(found) == ["a/final.txt"]
    assert [(each.origin, each.reason) for each in found.rejected] == [
        ("a/draft_1.txt", "left out by exclude '**/draft_*'"),
        ("draft_2.txt", "left out by exclude '**/draft_*'"),
        ("draft_3.pdf", "left out by exclude '**/draft_*'"),
        ("old/x/y.txt", "left out by exclude 'old'"),
    ]
    assert {each.rule for each in found.rejected} == {"excluded"}


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not_fit"),
    [
        ("*.txt", ["a.txt", ".txt"], ["b/a.txt", "a.md"]),
        ("**/*.txt", ["a.txt", "b/c/a.txt"], ["a.md"]),
        ("**/notes.pdf", ["notes.pdf", "stats/notes.pdf"], ["my_notes.pdf"]),
        ("a/**/z.txt", ["a/z.txt", "a/b/c/z.txt"], ["b/z.txt"]),
        ("a/**", ["a/b", "a/b/c.txt"], ["b/a"]),
        ("a/", ["a/b.txt"], ["ab.txt"]),
        ("./a.txt", ["a.txt"], ["b/a.txt"]),
        ("ch?p[1-3].txt", ["chap1.txt"], ["chap4.txt", "ch/p1.txt"]),
        ("[!a]*.txt", ["b.txt"], ["a.txt"]),
        ("a[.txt", ["a[.txt"], ["a.txt"]),
        ("a+(b).txt", ["a+(b).txt"], ["aab.txt"]),
        ("[^]x", ["^x"], ["ax"]),
    ],
)
def test_patterns_mean_what_shells_mean(pattern: str, fits: list[str], does_not_fit: list[str]) -> None:
    patterns = Patterns.of([pattern])
    assert [path for path in fits if patterns.first_match(path) != pattern] == []
    assert [path for path in does_not_fit if patterns.first_match(path)] == []


def test_a_missing_path_says_where_what_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_files(tmp_path / "nowhere")
    assert caught.value.where == str(tmp_path / "nowhere")
    assert caught.value.found == "there is no such file or folder."
    assert caught.value.remedy == "Check data.sources.path, or create it and put text into it."


def test_a_folder_that_cannot_be_listed_is_an_error_and_below_the_top_is_named(tmp_path: Path) -> None:
    put(tmp_path, "top/a.txt", "top/closed/b.txt")
    (tmp_path / "top/closed").chmod(0)
    if os.access(tmp_path / "top/closed", os.R_OK):
        pytest.skip("this user can read everything")
    try:
        found = find_files(tmp_path / "top")
        assert [(each.origin, each.reason) for each in found.rejected] == [
            ("closed", "the folder cannot be listed (Permission denied)")
        ]
        with pytest.raises(DataError, match=r"the folder cannot be listed \(Permission denied\). Give yourself"):
            find_files(tmp_path / "top/closed")
        with pytest.raises(DataError, match=r"there is no such file or folder"):
            find_files(tmp_path / "top/closed/b.txt")
    finally:
        (tmp_path / "top/closed").chmod(0o755)


def test_an_empty_folder_says_what_to_put_into_it(tmp_path: Path) -> None:
    error = nothing_to_read(tmp_path, find_files(tmp_path).rejected, TEXT_ENDS)
    assert (
        str(error)
        == f"{tmp_path}: the folder is empty. Put text into it (.txt, .md, .rst, .text), or take the folder away."
    )


def test_a_folder_of_other_files_says_what_it_holds_and_that_they_need_converting(tmp_path: Path) -> None:
    put(tmp_path, ".DS_Store")
    hidden = find_files(tmp_path).rejected
    others = [Rejected(name, "no reader", rule="no_reader") for name in ("README", "a.pdf", "b.PDF", "c.docx")]
    error = nothing_to_read(tmp_path, [*hidden, *others], TEXT_ENDS)
    assert error.where == str(tmp_path)
    assert error.found == "nothing in it is text; it holds 2 .pdf, 1 .docx, 1 no ending."
    assert error.remedy == "Convert these files to one of .txt, .md, .rst, .text."


def test_a_folder_whose_every_text_is_left_out_says_which_rule_did_it(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", "b.txt")
    error = nothing_to_read(tmp_path, find_files(tmp_path, exclude=["*"]).rejected, TEXT_ENDS)
    assert "none of its 2 text files can be read; the first is a.txt: left out by exclude '*'." in str(error)
    assert error.remedy.startswith("Mend them, or correct data.exclude")


def test_a_source_of_files_needs_a_path_and_another_takes_none() -> None:
    with pytest.raises(
        ConfigError, match=r"data.sources.path: a source of kind 'jsonl' has no path. Give it the folder"
    ):
        needed_path("jsonl", None)
    with pytest.raises(
        ConfigError, match=r"data.sources.path: 'x' is given, but .* 'dummy' reads no files. Leave path"
    ):
        refuse_path("dummy", "x")
