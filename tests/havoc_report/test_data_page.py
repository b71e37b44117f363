from __future__ import annotations

import dataclasses
import html
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from havoc_report.data_page import data_page
from havoc_report.data_record import (
    ContaminationCard,
    DataCard,
    DuplicatesCard,
    FateCard,
    FormatCard,
    PersonalDataCard,
    RuleCard,
    RuleExample,
    SourceCard,
    TokensCard,
)
from havoc_report.page import render

VOID = {"meta"}


class Reader(HTMLParser):
    """Checks that tags are closed in order, and remembers them and every address."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            assert name not in ("href", "src") or (value or "").startswith("#"), value

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(card: DataCard) -> str:
    return render(data_page(card))


def shown(card: DataCard) -> str:
    """The page's text as a reader sees it, tags as spaces."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page_of(card).partition("</head>")[2])).split())


@pytest.fixture(scope="module")
def full_text(full_card: DataCard) -> str:
    return shown(full_card)


def bare(*sources: SourceCard) -> DataCard:
    return DataCard("t", "p", sources)


def test_the_page_is_one_file_without_script_and_every_tag_is_closed(full_card: DataCard) -> None:
    page = page_of(full_card)
    found = Reader(page)
    assert found.open == []
    assert "script" not in found.tags and "link" not in found.tags and "img" not in found.tags
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}
    page.encode("utf-8")


def test_hostile_names_and_examples_are_shown_not_run(full_card: DataCard) -> None:
    page = page_of(full_card)
    assert "<script" not in page
    assert not re.search("[\x00\u202e\ud800]", page)
    assert page.count("&lt;script&gt;alert(1)") >= 7  # example, its origin, cluster, family, exam, file, warning


@settings(max_examples=12, deadline=None)
@given(st.text(st.characters(codec=None), min_size=1, max_size=40))
def test_no_name_or_excerpt_changes_the_tags(text: str) -> None:
    def card(name: str) -> DataCard:
        source = SourceCard(
            name, "general", 10, (FateCard("kept", 9, 1, 9), FateCard("rejected", 1, 1, 1, name)),
            formats=(FormatCard(name, 1, 10, 2, 10),), licences={name: 1}, encodings={name: 1},
        )  # fmt: skip
        rule = RuleCard(name, name, "general", "drop", 1, 2, 1, 10, (RuleExample(name, name, name, name),))
        return DataCard(name, name, (source,), rules=(rule,), warnings=(name,))

    def body(page: str) -> str:
        return re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL)  # a chart may leave out an empty label

    assert Reader(body(page_of(card(text)))).tags == Reader(body(page_of(card("x")))).tags
    Reader(page_of(card(text)))


def test_the_verdict_comes_first_and_the_ledger_last(full_card: DataCard) -> None:
    titles = [section.title for section in data_page(full_card).sections]
    assert titles == [
        "In short", "What to do about it", "Where the bytes went", "What is in the files", "How long the documents are",
        "Languages", "What the rules say", "What occurs more than once", "Formulas", "Exam questions in the text",
        "Personal data", "Licences", "Tokens and readings", "What it suffices for", "What could not be read", "The ledger",
    ]  # fmt: skip
    assert page_of(full_card).count("<svg") == 2 * 9  # each for a desk and for a telephone


@pytest.mark.parametrize(
    "said",
    [
        "97.0 MiB in 16,223 files from 3 sources give 15,900 documents",
        "90.6 % kept · 1.6 % held out · 1.6 % duplicates",
        "textbooks 55.6 MiB 0.5 % 3.9 % 0.5 % 1.5 % 52.0 MiB",
        "textbooks pdf 12 10.0 MiB 177 8.00 MiB",
        "textbooks cp1252 18",
        "have fewer than 1,000 characters",
        "engineering-forum-pages-of-2019 95.7 % – 4.3 %",
        "boilerplate general left out 4,800 33.1 % 2.00 MiB 13.3 %",
        "few_letters general left out 0 0.0 % 0 bytes 0.0 %",
        "forum/17.html (0.710, limit 0.300) Accept all cookies Log in Subscribe",
        "a/b.tex (77, limit 100) See chapter 4.",
        "612 documents that say nearly the same",
        "600 files differ only in numbers",
        "textbooks tex 210,000 3 under 0.1 %",
        "textbooks pdf 5,200 2,100 40.4 % 940 212",
        "verified problems 800 3 0.4 % 4 293 KiB",
        "353 places in 290 documents. It was counted and left as it is.",
        "CC-BY-SA-4.0 4,190 25.9 % engineering-forum-pages-of-2019",
        "not known 157 1.0 % textbooks",
        "textbooks domain 17,200,000 85.0 % 3.17 36,000,000 2.09 fine",
        "40,000,000 42.55 refused",
        "Hoffmann et al. 2022, arXiv:2203.15556",
        "Muennighoff et al. 2023, arXiv:2305.16264, equation 5",
        "backup/old.tar.gz: the file ends in the middle of a block (145 KiB)",
        "and 12 more",
        "rejected by a rule too_short 262,144 0.4 % 12",
        "sum 67,108,881 100.0 % 2,977 input 67,108,881",
        "textbooks (domain): closes.",
    ],
)
def test_the_page_says(full_text: str, said: str) -> None:
    assert said in full_text


def test_what_was_not_looked_at_is_said_plainly(full_card: DataCard) -> None:
    text = shown(bare(dataclasses.replace(full_card.sources[2], languages={}, lengths=(), licences={})))
    for said in (
        "The lengths of the documents were not counted.",
        "Languages were not identified.",
        "No rule was run on the text.",
        "Whether text occurs more than once was not looked at.",
        "Families of documents that differ only in numbers were not looked for.",
        "No reader of these formats counts formulas, or there were none.",
        "Whether the text holds questions of examinations was not looked at.",
        "Personal data was not looked for.",
        "Licences were not looked for.",
        "There is no tokenizer yet. The figures below are estimates: 4 bytes of text a token",
        "There is no plan yet",
        "Every file that was found could be read.",
    ):
        assert said in text


def test_looked_at_and_found_nothing_is_told_from_not_looked_at() -> None:
    card = dataclasses.replace(
        bare(SourceCard("a", "domain", 5, (FateCard("kept", 5, 1, 5),), (FormatCard("tex", 1, 5, 1, 5, formulas=3),))),
        duplicates=DuplicatesCard(0, 0),
        contamination=ContaminationCard("drop", ()),
        personal_data=PersonalDataCard("report", {"e-mail": 0}),
        templates=(),
        rules=(RuleCard("too_short", "", "domain", "drop", 0, 1, 0, 5),),
    )
    text = shown(card)
    for said in (
        "Near-duplicates – not looked for",
        "No two documents are equal but for their numbers.",
        "No examination was given to look for.",
        "Nothing was found that looks like personal data.",
        "Every formula that was seen reached the text.",
        "1 rule ran; none fired.",
    ):
        assert said in text


def test_an_empty_folder_has_a_page_without_empty_sections() -> None:
    page = data_page(bare())
    assert all(section.parts for section in page.sections)
    assert "The ledger" not in [section.title for section in page.sections]
    assert "There is no source of text" in shown(bare())


def test_a_ledger_that_does_not_close_is_shown_as_open() -> None:
    text = shown(bare(SourceCard("a", "domain", 10, (FateCard("kept", 7, 1, 7),))))
    assert "does not close: 3 bytes apart" in text and "bytes are missing or counted twice" in text
    assert "The ledger of a does not close" in text


def test_dummy_data_is_said_above_everything_else(full_card: DataCard) -> None:
    assert shown(dataclasses.replace(full_card, dummy=True)).startswith("DUMMY DATA")
    assert "DUMMY DATA" not in shown(full_card)


def test_many_sources_languages_and_licences_stay_readable(full_card: DataCard) -> None:
    base = full_card.sources[0]
    codes = {f"x{number}": 100 - number for number in range(12)}
    many = tuple(dataclasses.replace(base, name=f"source {number:02}", languages=codes) for number in range(30))
    card = dataclasses.replace(full_card, sources=many, tokens=TokensCard(()))
    text = shown(card)
    for said in ("6 smaller sources", "24 more", "6 more", "source 00, source 01, source 02, source 03 and 26 more"):
        assert said in text
    assert "What it suffices for" not in [section.title for section in data_page(card).sections]


def test_the_same_card_gives_the_same_bytes_whatever_order_its_counts_were_made_in(full_card: DataCard) -> None:
    first = full_card.sources[0]
    turned = dataclasses.replace(
        first,
        languages=dict(reversed(first.languages.items())),
        licences=dict(reversed(first.licences.items())),
        encodings=dict(reversed(first.encodings.items())),
    )
    other = dataclasses.replace(full_card, sources=(turned, *full_card.sources[1:]))
    assert page_of(full_card) == page_of(other)
