from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_core.errors import HavocError
from havoc_report.escaping import clean
from havoc_report.page import (
    Bullets,
    Code,
    Fact,
    Facts,
    Figure,
    Note,
    Page,
    Pair,
    Paragraph,
    Sample,
    Section,
    render,
    write_page,
)
from havoc_report.plots import Series, line_chart
from havoc_report.tables import Column, Table

VOID = {"meta", "link", "br", "hr", "img", "input"}
ANY_TEXT = st.text(st.characters(codec=None, categories=None), min_size=1)


class Reader(HTMLParser):
    """Reads a page as a browser would: tags with attributes, text, and whether every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [
            value or "" for name, value in attrs if name in ("href", "src", "action", "data", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def page_of(text: str) -> Page:
    """A page with `text` in every field that takes text."""
    svg = line_chart([Series("a", [1, 2], [1, 2])], x_label="x", y_label="y", title="t")
    parts = (
        Paragraph(text),
        Bullets((text,)),
        Note(text, "danger", text),
        Facts((Fact(text, text, text),)),
        Figure(svg, text, narrow=svg),
        Pair(Figure(svg, text), Figure(svg, text)),
        Code(text),
        Sample(text, text, text),
        Table(text, (Column(text), Column(text, "right")), ((text, text), (text, 1.0))),
    )
    return Page(text, text, (Section(text, parts), Section(text, ())), text, (Note(text),), text)


@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
def test_no_text_in_any_field_changes_the_tags_of_a_page(text: str) -> None:
    page = render(page_of(text))
    page.encode("utf-8")
    found, plain = Reader(page), Reader(render(page_of("x")))
    assert found.open == []
    assert found.tags == plain.tags
    assert not any(name.startswith("on") for _, names in found.tags for name in names)


def test_a_script_in_a_sample_is_shown_not_run() -> None:
    page = render(Page("t", "s", (Section("a", (Sample("p", "</pre><script>alert(1)</script>\x00"),)),)))
    assert "<script" not in page
    assert "</pre><script>alert(1)</script>⟨U+0000⟩" in Reader(page).text
    assert "default-src 'none'" in page  # and the browser is told to run nothing at all


@given(ANY_TEXT)
def test_code_keeps_every_character_that_can_be_shown(text: str) -> None:
    shown = "".join(Reader(Code(text).html()).text)
    assert shown == "\n" + clean(text)  # browsers drop the first newline of a <pre>


def test_a_page_asks_for_nothing_from_outside() -> None:
    page = render(page_of("x"))
    assert all(address.startswith("#") for address in Reader(page).addresses)
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|@font-face|url\(|<link|<img|<script", page)


def test_ids_are_unique_and_every_entry_of_the_contents_leads_somewhere() -> None:
    found = Reader(render(page_of("x")))
    assert max(Counter(found.ids).values()) == 1
    assert {address[1:] for address in found.addresses} <= set(found.ids)


def test_a_page_is_the_same_each_time() -> None:
    assert render(page_of("x")) == render(page_of("x"))


def test_a_page_serves_dark_screens_paper_and_telephones() -> None:
    page = render(Page("t", "s", ()))
    for query in ("@media screen and (prefers-color-scheme: dark)", "@media print", "@media (max-width: 34rem)"):
        assert query in page
    assert '<html lang="en">' in page and 'name="viewport"' in page


def test_writing_makes_the_folder_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "report.html"
    for title in ("old", "new ≤"):
        write_page(path, Page(title, "", ()))
    assert path.read_text(encoding="utf-8") == render(Page("new ≤", "", ()))
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_a_folder_in_the_way_is_named_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(
        HavocError,
        match=r"report\.html: the page \([\d,]+ bytes\) cannot be written: .+\. Check that the folder exists",
    ) as caught:
        write_page(tmp_path / "report.html", Page("t", "s", ()))
    assert caught.value.where == str(tmp_path / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_file_where_the_folder_should_be_is_an_error_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(HavocError, match="cannot be written"):
        write_page(tmp_path / "logs" / "report.html", Page("t", "s", ()))
    assert (tmp_path / "logs").read_text() == "in the way"
