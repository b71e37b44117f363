"""A corpus -> the data card: the same numbers as the ledger, and a page."""

from __future__ import annotations

import json

import pytest

from havoc_core.config import DataMixtureConfig
from havoc_data.prepare.build import collect_corpus, prepare
from havoc_data.prepare.card import Planned, data_card
from havoc_report.data_page import data_page
from havoc_report.data_verdict import findings
from havoc_report.page import render

QUESTION = (
    "A lorry of three tons brakes evenly from ninety kilometres an hour to rest within forty metres; how large is the "
    "force on it, in newtons?"
)


@pytest.fixture(scope="module")
def messy(tmp_path_factory, make_run, changed):
    """A run whose text has duplicates, junk, personal data, an exam question, a licence and a file that is no text."""
    config, data = make_run(tmp_path_factory.mktemp("messy"))
    text = (data / "math" / "00.txt").read_text(encoding="utf-8")
    (data / "stats" / "copy.txt").write_text(text, encoding="utf-8")
    (data / "math" / "near.txt").write_text(text + " And one more.", encoding="utf-8")
    (data / "math" / "mail.txt").write_text("Write to ada.lovelace@analytical.org about the mean of it. " * 3)
    (data / "math" / "leak.txt").write_text(
        "What follows is a question. " + QUESTION + " It has been asked before. " * 4
    )
    (data / "general" / "short.txt").write_text("too short")
    (data / "general" / "zeros.txt").write_bytes(bytes(500))
    (data / "stats" / "LICENSE").write_text("SPDX-License-Identifier: MIT\n")
    for number in range(4):
        (data / "math" / f"exercise{number}.txt").write_text(f"Exercise {number}: what is {number} + {number * 7}?")
    exam = data.parent / "finals.json"
    exam.write_text(json.dumps([{"id": "q7", "question": QUESTION}]))
    return changed(config, {"decontamination": {"exams": [str(exam)]}})


@pytest.fixture(scope="module")
def card(messy):
    """Its card, before anything is tokenized."""
    return data_card(collect_corpus(messy), messy.data, title="messy", made_from="data")


def test_every_byte_of_every_source_has_a_fate(card, messy):
    corpus = collect_corpus(messy)
    for source, ledger in zip(card.sources, corpus.ledgers, strict=True):
        assert (source.name, source.group) == (ledger.name, ledger.group)
        assert sum(fate.bytes for fate in source.fates) == source.input_bytes
        assert sum(fate.documents for fate in source.fates) == sum(ledger.sums.documents.values())
        assert sum(source.lengths) == ledger.kept
    words = {fate.fate for source in card.sources for fate in source.fates}
    assert words == {"kept", "held_out", "duplicate", "near_duplicate", "contaminated", "rejected", "unreadable"}


def test_formats_licences_and_what_could_not_be_read_are_there(card):
    sources = {source.name: source for source in card.sources}
    assert {each.format: each.files for each in sources["dialog"].formats} == {"jsonl": 1}
    assert {each.format: each.files for each in sources["math"].formats} == {"text": 77}
    assert set(sources["stats"].licences) == {"MIT"}
    assert set(sources["math"].licences) == {""}
    assert [each.origin for each in sources["general"].unreadable] == ["zeros.txt"]
    assert sources["general"].unreadable_parts == 1


def test_every_rule_that_is_looked_at_has_a_row_with_its_share(card, messy):
    limits = [name for name, limit in messy.data.cleaning.rules.model_dump().items() if limit is not None]
    assert [rule.rule for rule in card.rules] == limits * 3
    short = {rule.group: rule for rule in card.rules if rule.rule == "too_short"}
    assert {group: rule.action for group, rule in short.items()} == messy.data.cleaning.actions
    assert (short["general"].documents_fired, short["general"].documents_seen) == (1, 71)
    assert short["domain"].documents_fired == 4
    assert len(short["domain"].examples) == 3


def test_duplicates_name_the_one_that_was_kept(card, messy):
    corpus = collect_corpus(messy)
    kept = {document.origin for source in corpus.groups for _, document in corpus.documents(source)}
    assert card.duplicates.exact_documents == 1
    assert card.duplicates.near_documents == 1
    assert all(cluster.kept_origin in kept for cluster in card.duplicates.clusters)
    assert sum(cluster.count for cluster in card.duplicates.clusters) >= 3


def test_questions_personal_data_and_templates_are_there(card):
    assert card.contamination.exams[0].questions_found == 1
    assert card.contamination.examples[0].origin == "leak.txt"
    assert card.personal_data.counts["email"] == 3
    assert card.personal_data.documents == 1
    assert [family.count for family in card.templates] == [4]


def test_what_is_not_looked_at_has_no_row(ready):
    data = DataMixtureConfig.model_validate(
        {
            **ready.data.model_dump(),
            "cleaning": {"domain": "off", "general": "off", "dialog": "off", "personal_data": "off"},
            "deduplication": {"domain": "off", "general": "off", "dialog": "off", "paragraphs": "off"},
        }
    )
    card = data_card(collect_corpus(ready), data, title="x", made_from="y")
    assert (card.rules, card.contamination, card.personal_data, card.tokens) == ((), None, None, None)
    assert (card.duplicates.near_documents, card.duplicates.paragraphs) == (None, None)


def test_tokens_and_epochs_come_with_a_store_and_a_plan(ready):
    prepared = prepare(ready)
    planned = Planned(prepared.store, 600, {"math": 3.0, "stats": 0.5}, model_parameters=1000)
    card = data_card(collect_corpus(ready), ready.data, title="x", made_from="y", planned=planned)
    rows = {row.source: row for row in card.tokens.rows}
    assert rows.keys() == {"dialog", "general", "math", "stats"}
    math = prepared.store.training["math"].record
    assert (rows["math"].tokens, rows["math"].text_bytes) == (math.tokens, math.bytes)
    assert rows["math"].planned_tokens == 3 * math.tokens
    assert rows["dialog"].planned_tokens == 0
    unplanned = data_card(
        collect_corpus(ready), ready.data, title="x", made_from="y", planned=Planned(prepared.store, 600)
    )
    assert {row.planned_tokens for row in unplanned.tokens.rows} == {None}


def test_the_page_is_the_same_for_the_same_card_and_names_what_was_found(card):
    page = render(data_page(card))
    assert page == render(data_page(card))
    for words in ("leak.txt", "zeros.txt", "too_short", "MIT", "messy"):
        assert words in page
    assert findings(card)


def test_a_group_without_text_is_a_warning_where_a_run_is_planned(config, changed):
    only_math = changed(config, {"sources": [{"kind": "files", "path": f"{config.data.data_dir}/math"}]})
    prepared, corpus = prepare(only_math), collect_corpus(only_math)
    planned = Planned(prepared.store, 600)
    card = data_card(corpus, only_math.data, title="x", made_from="y", planned=planned)
    assert card.warnings == tuple(
        f"There is no text for {group}; its share goes to the other groups." for group in ("general", "dialog")
    )
    assert data_card(corpus, only_math.data, title="x", made_from="y").warnings == (), "a folder is looked at by itself"
