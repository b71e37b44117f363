from __future__ import annotations

import dataclasses

import pytest

from havoc_report.data_record import (
    ContaminationCard,
    DataCard,
    ExamCard,
    FateCard,
    FormatCard,
    PersonalDataCard,
    RuleCard,
    SourceCard,
    TokenRow,
    TokensCard,
)
from havoc_report.data_verdict import (
    findings,
    lead_sentences,
    names_of,
    plural,
    short_count,
    state_verdict,
    tokens_of,
    trouble_verdict,
    use_verdict,
    volume_verdict,
)

CLEAN = SourceCard(
    "stats",
    "domain",
    1000,
    (FateCard("kept", 900, 9, 800), FateCard("held_out", 100, 1, 90)),
    formats=(FormatCard("tex", 10, 1000, 10, 890, formulas=500),),
    licences={"MIT": 10},
)


def card(source: SourceCard = CLEAN, tokens: TokensCard | None = None) -> DataCard:
    return DataCard("t", "p", (source,), tokens=tokens)


def said(found: DataCard) -> str:
    return " ".join(f"[{each.kind}] {each.title}. {each.text}" for each in findings(found)).replace("\u00a0", " ")


def planned(tokens: int, planned_tokens: int, *, allow_repeats: bool = False) -> DataCard:
    row = TokenRow("stats", "domain", tokens, 800, planned_tokens)
    return card(tokens=TokensCard((row,), allow_repeats=allow_repeats))


def test_a_clean_corpus_has_no_finding() -> None:
    assert findings(card()) == ()
    assert trouble_verdict(card()) == "Nothing was found that stands in the way of training on it."


def test_the_verdict_says_how_much_and_in_what_state() -> None:
    text = " ".join(lead_sentences(card())).replace("\u00a0", " ")
    assert text.startswith(
        "1,000 bytes in 10 files from 1 source give 9 documents with 800 bytes of text to train on, and 90 bytes held out"
    )
    assert "100.0 % of the bytes are used; nothing was left out. The ledger closes: each of 1,000 bytes" in text


def test_the_largest_losses_are_named() -> None:
    fates = (FateCard("kept", 500, 5, 500), FateCard("duplicate", 400, 4, 400), FateCard("rejected", 100, 1, 100, "x"))
    text = state_verdict(card(dataclasses.replace(CLEAN, fates=fates))).replace("\u00a0", " ")
    assert (
        "50.0 % of the bytes are used; most of the rest went to: duplicates 40.0 %, rejected by a rule 10.0 %." in text
    )


def test_no_source_and_no_kept_text_are_said_plainly() -> None:
    assert lead_sentences(DataCard("t", "p", ()))[:3] == (
        "There is no source of text: nothing was found to read.",
        "Nothing was read.",
        "There are no tokens to train on.",
    )
    nothing = card(dataclasses.replace(CLEAN, fates=(FateCard("unreadable", 1000),)))
    assert volume_verdict(nothing).endswith("from 1 source no document is left to train on.")
    assert "[danger] No text is left. Look at the rules" in said(nothing)


@pytest.mark.parametrize(
    ("kept", "found"), [(890, "10 bytes of 1,000 have no fate"), (910, "10 bytes of 1,000 are counted more than once")]
)
def test_a_ledger_that_does_not_close_is_the_first_finding(kept: int, found: str) -> None:
    fates = (FateCard("kept", kept, 9, 800), FateCard("held_out", 100, 1, 90))
    open_ledger = card(dataclasses.replace(CLEAN, fates=fates, licences={"": 10}))
    first = findings(open_ledger)[0]
    assert first.kind == "danger" and first.title == "The ledger of stats does not close"
    assert first.text.startswith(found)
    assert "The ledger does not close" in state_verdict(open_ledger)


def test_tokens_are_estimated_from_the_kept_text_until_there_is_a_tokenizer() -> None:
    found = tokens_of(card())
    assert found.estimated and found.rows == (TokenRow("stats", "domain", 200, 800),)
    assert "about 200 tokens (estimated at 4 bytes each: there is no tokenizer yet)" in use_verdict(card())


@pytest.mark.parametrize(
    ("parameters", "end"), [(37_000, "the text suffices."), (38_000, "the text is too little for it.")]
)
def test_the_planned_model_is_held_against_four_readings(parameters: int, end: str) -> None:
    tokens = TokensCard((TokenRow("stats", "domain", 200_000, 800_000),), model_parameters=parameters)
    assert use_verdict(card(tokens=tokens)).endswith(end)  # 3.7257 * 200,000 / 20 = 37,257


@pytest.mark.parametrize(
    ("epochs", "kind", "found"),
    [
        (5, "warning", "stats would be read 5.00 times. That is worth 4.52 times its tokens in fresh text"),
        (17, "danger", "stats would be read 17.0 times: far too often. Beyond 16 readings"),
        (41, "danger", "stats would be read 41.0 times: refused. Readings beyond 40 teach nothing more."),
    ],
)
def test_too_many_readings_are_found_with_what_they_are_worth_and_a_way_out(epochs: int, kind: str, found: str) -> None:
    text = said(planned(1_000_000, epochs * 1_000_000))
    assert text.startswith(f"[{kind}] {found}")
    assert "data.domain_ratio" in text and "4 readings are 4.00 million tokens." in text
    assert ("data.allow_repeats: true" in text) == (epochs > 40)


def test_four_readings_are_no_finding_and_allowed_repeats_are_not_called_refused() -> None:
    assert findings(planned(100, 400)) == ()
    assert "allowed, not wise" in said(planned(100, 4100, allow_repeats=True))


@pytest.mark.parametrize(
    ("action", "fired", "found"), [("drop", 30, True), ("drop", 29, False), ("annotate", 99, False)]
)
def test_a_rule_that_drops_three_in_ten_is_doubted(action: str, fired: int, found: bool) -> None:
    rule = RuleCard("boilerplate", "", "general", action, fired, 100, 1, 2)
    text = said(dataclasses.replace(card(), rules=(rule,)))
    assert ("set data.cleaning.rules.boilerplate to another limit or to null" in text) == found


@pytest.mark.parametrize(("text_bytes", "found"), [(99, False), (101, True)])
def test_one_per_cent_of_domain_text_is_the_most_that_the_rules_may_take_unsaid(text_bytes: int, found: bool) -> None:
    fates = (FateCard("kept", 900, 9, 10_000 - text_bytes), FateCard("rejected", 100, 1, text_bytes, "too_short"))
    domain = dataclasses.replace(CLEAN, fates=fates)
    assert ("Rules take 1.0 % of stats" in said(card(domain))) == found
    assert "Rules take" not in said(card(dataclasses.replace(domain, group="general")))


def test_lost_formulas_are_summed_up_by_source() -> None:
    formats = (
        FormatCard("pdf", 1, 1, 1, 1, formulas=10, formulas_lost=4, pages=9, pages_lost=2),
        FormatCard("html", 1, 1, 1, 1, formulas=100, formulas_lost=1),
        FormatCard("tex", 1, 1, 1, 1, formulas=1000, formulas_lost=9),
    )
    text = said(card(dataclasses.replace(CLEAN, formats=formats)))
    assert (
        "4 of 10 in pdf files, 1 of 100 in html files; 2 pages were set aside for it" in text
        and "tex files" not in text
    )


def test_unknown_licences_unreadable_files_exams_and_persons_are_found() -> None:
    source = dataclasses.replace(CLEAN, licences={"": 3}, unreadable_parts=1)
    found = dataclasses.replace(
        card(source),
        contamination=ContaminationCard("annotate", (ExamCard("gsm8k", 9, 2, 2),)),
        personal_data=PersonalDataCard("report", {"e-mail": 1}),
        warnings=("A file changed.",),
    )
    text = said(found)
    for part in (
        "1 file or part of a file could not be read",
        "Put a LICENSE file or metadata.jsonl beside the text of stats.",
        "The text holds 2 exam questions. Scores on them would be too good.",
        "A file changed.",
        "[info] The text holds what looks like personal data.",
    ):
        assert part in text
    assert trouble_verdict(found) == "5 things should be looked at: see below."
    settled = dataclasses.replace(
        found,
        contamination=ContaminationCard("drop", (ExamCard("gsm8k", 9, 2, 2),)),
        personal_data=PersonalDataCard("mask", {"e-mail": 1}),
    )
    assert "exam questions" not in said(settled) and "personal" not in said(settled)


def test_counts_and_names_are_said_as_a_person_would() -> None:
    assert (plural(1, "page"), plural(1200, "page"), plural(2, "family", "families")) == (
        "1 page",
        "1,200 pages",
        "2 families",
    )
    assert [short_count(n) for n in (950, 12_300, 4.56e6, 7.01e9, 2e12)] == [
        "950", "12,300", "4.56 million", "7.01 billion", "2.00 trillion",
    ]  # fmt: skip
    assert (names_of(["a", "b"]), names_of(list("abcdef"))) == ("a, b", "a, b, c, d and 2 more")
