"""The card says what the model is, what it learnt from, what it cannot do, and what was proven."""

from __future__ import annotations

from havoc_inference.export.card import CardFacts, ScoreLine, SourceBill, model_card
from havoc_inference.export.comparison import Comparison, Figure


def card(contents, facts=None, comparisons=()):
    return model_card(
        contents, facts or CardFacts("mine"), usage="Call it.", stored="float32", comparisons=list(comparisons)
    )


def test_it_holds_the_data_bill_the_licences_and_the_scores(make):
    facts = CardFacts(
        "mine",
        sources=(
            SourceBill("stats", "domain", 1200, 34567, 8901, {"CC-BY-4.0": 1000, "unknown": 200}),
            SourceBill("web|pages", "general", 5, 60, None, {"unknown": 5}),
        ),
        scores=(
            ScoreLine("exam", "total", "accuracy", 0.25, 0.2, 0.31),
            ScoreLine("held_out", "domain", "x", 1.5, None, None),
        ),
        scored_tokens=12_345,
    )
    text = card(make(), facts)
    assert "| stats | domain | 1,200 | 34,567 | 8,901 |" in text
    assert "| web\\|pages | general | 5 | 60 |  |" in text
    assert "| CC-BY-4.0 | 1,000 |" in text and "| unknown | 205 |" in text
    assert "| exam | total | accuracy | 0.2500 | 0.2000 to 0.3100 |" in text
    assert "| trained | 7 updates, 12,345 tokens |" in text
    assert "choose one that the texts' licences allow" in text


def test_what_is_not_known_is_said(make):
    text = card(make())
    assert "what it learnt from is not listed here" in text
    assert "This model was not evaluated." in text
    assert "**DUMMY DATA: this model learnt from random words.**" in text
    assert "split_special_tokens=True" in text


def test_a_comparison_that_was_not_made_stands_beside_those_that_were(make):
    made = Comparison("transformers 5.23.0", "How.", (Figure("largest difference of a logit", 2e-6, 1e-4),))
    text = card(make(), comparisons=[made, Comparison("llama.cpp", "xllamacpp is not installed.")])
    assert "| largest difference of a logit | 2.0e-06 (limit 1.0e-04) |" in text
    assert "**Not compared with llama.cpp**: xllamacpp is not installed." in text
