from __future__ import annotations

import pytest

from havoc_report.data_record import (
    NUM_LENGTHS,
    ContaminationCard,
    DataCard,
    DuplicateCluster,
    DuplicatesCard,
    ExamCard,
    ExamExample,
    FateCard,
    FormatCard,
    LeftOutFile,
    PersonalDataCard,
    RuleCard,
    RuleExample,
    SourceCard,
    TemplateFamily,
    TokenRow,
    TokensCard,
)

HOSTILE = '</pre><script>alert(1)</script>\x00\u202egnp.exe \ud800 & "quoted" \''
"""What a file may be called or hold: tags, NUL, a turned reading direction, half a surrogate pair."""

MIB = 2**20


def hump(middle: int, height: int) -> tuple[int, ...]:
    """Counts of lengths that rise to `height` in one column and fall again."""
    return tuple(height // 4 ** abs(place - middle) for place in range(NUM_LENGTHS))


TEXTBOOKS = SourceCard(
    name="textbooks",
    group="domain",
    input_bytes=64 * MIB + 17,
    fates=(
        FateCard("kept", 58 * MIB, 2800, 52 * MIB),
        FateCard("held_out", MIB + 17, 57, 900_000),
        FateCard("duplicate", MIB, 40, 800_000),
        FateCard("near_duplicate", 2 * MIB, 61, 1_500_000),
        FateCard("contaminated", MIB // 2, 4, 300_000),
        FateCard("rejected", MIB // 4, 12, 190_000, "too_short"),
        FateCard("rejected", MIB // 4, 3, 90_000, "formulas_lost"),
        FateCard("unreadable", MIB, 0, 0, "truncated gzip"),
    ),
    formats=(
        FormatCard("tex", 310, 40 * MIB, 1900, 36 * MIB, formulas=210_000, formulas_lost=3),
        FormatCard("html", 900, 14 * MIB, 900, 9 * MIB, formulas=41_000, formulas_lost=820),
        FormatCard("pdf", 12, 10 * MIB, 177, 8 * MIB, formulas=5200, formulas_lost=2100, pages=940, pages_lost=212),
    ),
    languages={"en": 50 * MIB, "de": 2 * MIB, "fr": 300_000, "": 20_000},
    lengths=hump(14, 1500),
    licences={"CC-BY-4.0": 1800, "GFDL-1.3-or-later": 900, "": 157},
    encodings={"utf-8": 1201, "cp1252": 18, "mended": 3},
    unreadable=(
        LeftOutFile("scans/" + HOSTILE + ".pdf", "a PDF of pictures: it holds no text", 900_000),
        LeftOutFile("backup/old.tar.gz", "the file ends in the middle of a block", 148_576),
    ),
    unreadable_parts=14,
)

WEB = SourceCard(
    name="engineering-forum-pages-of-2019",
    group="general",
    input_bytes=30 * MIB,
    fates=(
        FateCard("kept", 12 * MIB, 4100, 8 * MIB),
        FateCard("held_out", MIB, 90, 700_000),
        FateCard("duplicate", 5 * MIB, 3000, 3 * MIB),
        FateCard("near_duplicate", 2 * MIB, 800, MIB),
        FateCard("rejected", 6 * MIB, 4000, 2 * MIB, "boilerplate"),
        FateCard("rejected", 4 * MIB, 2500, 900_000, "unfinished_lines"),
    ),
    formats=(FormatCard("html", 15_000, 30 * MIB, 14_490, 16 * MIB, formulas=90),),
    languages={"en": 15 * MIB, "es": 700_000},
    lengths=hump(10, 4000),
    licences={"CC-BY-SA-4.0": 4190},
)

PROBLEMS = SourceCard(
    name="problems",
    group="dialog",
    input_bytes=3 * MIB,
    fates=(FateCard("kept", 3 * MIB - 2**15, 9000, 3 * MIB - 2**15), FateCard("held_out", 2**15, 100, 2**15)),
    formats=(FormatCard("jsonl", 1, 3 * MIB, 9100, 3 * MIB),),
    languages={"en": 3 * MIB},
    lengths=hump(7, 7000),
    licences={"MIT": 9100},
)

RULES = (
    RuleCard(
        "too_short", "Characters a document has at least.", "domain", "annotate", 12, 2977, 900, 55 * MIB,
        (RuleExample("notes/" + HOSTILE, 41, 100, HOSTILE), RuleExample("a/b.tex", 77, 100, "See chapter 4.")),
    ),
    RuleCard("repeated_lines", "Share of repeated lines at most.", "domain", "annotate", 1, 2977, 40_000, 55 * MIB),
    RuleCard("boilerplate", "Share of lines of boilerplate at most.", "general", "drop", 4800, 14_490, 2 * MIB, 15 * MIB,
             (RuleExample("forum/17.html", 0.71, 0.3, "Accept all cookies\nLog in\nSubscribe"),)),
    RuleCard("unfinished_lines", "Share of lines that end with punctuation at least.", "general", "drop", 2500, 14_490,
             900_000, 15 * MIB),
    RuleCard("few_letters", "Share of words with a letter at least.", "general", "drop", 0, 14_490, 0, 15 * MIB),
)  # fmt: skip

FULL = DataCard(
    title="A corpus of engineering",
    made_from="data/",
    sources=(TEXTBOOKS, WEB, PROBLEMS),
    rules=RULES,
    duplicates=DuplicatesCard(
        3040, 3 * MIB + 800_000, 861, MIB + 1_500_000, 5210, 2_400_000, 0.75,
        (
            DuplicateCluster(612, "forum/1.html", "forum/9.html"),
            DuplicateCluster(40, "ch1/" + HOSTILE, "ch1/copy.tex", "exact"),
        ),
    ),
    contamination=ContaminationCard(
        "drop",
        (ExamCard("verified problems", 800, 3, 4, 300_000), ExamCard("gsm8k.jsonl", 1319, 0, 0)),
        (ExamExample("verified problems", "A shaft of 20 mm ... " + HOSTILE, "book/ex.tex", 0.94),),
    ),
    personal_data=PersonalDataCard("report", {"e-mail": 312, "phone": 41, "key": 0}, 290),
    templates=(TemplateFamily(600, "problems/" + HOSTILE, "The mean of 3, 5 and 9 is ..."), TemplateFamily(31, "logs/1", "t = 1")),
    tokens=TokensCard(
        (
            TokenRow("textbooks", "domain", 17_200_000, 52 * MIB, 36_000_000),
            TokenRow("engineering-forum-pages-of-2019", "general", 2_100_000, 8 * MIB, 18_000_000),
            TokenRow("problems", "dialog", 940_000, 3 * MIB - 2**15, 40_000_000),
        ),
        vocabulary=8192,
        model_parameters=3_150_000,
    ),
    warnings=("One file changed while it was read: " + HOSTILE,),
)  # fmt: skip


@pytest.fixture
def hostile() -> str:
    return HOSTILE


@pytest.fixture(scope="session")
def full_card() -> DataCard:
    return FULL
