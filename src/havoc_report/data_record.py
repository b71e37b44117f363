"""Everything that the data card says, as plain frozen values.

Whoever read the text fills it in; the card measures nothing itself. None means "not looked at", which is something
else than a count of zero. "Bytes" are bytes of the input as it lies in the files, unpacked; "text bytes" are bytes of
the text that was made from them, in UTF-8. Origins and excerpts are what the files hold: hostile text, never trusted.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field

from havoc_report.data_rules import EpochsVerdict, epochs_verdict

FATES = ("kept", "held_out", "duplicate", "near_duplicate", "contaminated", "rejected", "unreadable")
"""What becomes of a byte, in the order in which the card shows them."""

LENGTH_EDGES: tuple[int, ...] = tuple(int(10 ** (quarter / 4) + 0.5) for quarter in range(4, 29))
"""Lengths of documents, in characters, where one column of the histogram ends and the next begins: four a decade, from
10 to 10 million."""
NUM_LENGTHS = len(LENGTH_EDGES) + 1
"""Columns of the histogram: below the first edge, between the edges, from the last edge on."""


def length_column(characters: int) -> int:
    """The column of the histogram that a document of so many characters is counted in."""
    return bisect.bisect_right(LENGTH_EDGES, characters)


EXCERPT_CHARACTERS = 400
"""So much of a document is enough to see why a rule fired."""


def excerpt_of(text: str) -> str:
    """The beginning of a text, as the card shows it; a dotted end says that there is more."""
    return text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS].rstrip() + " \u2026"


@dataclass(frozen=True)
class FateCard:
    """Input that came to the same end for the same reason.

    Args:
        fate: one of FATES.
        bytes: of the input.
        documents: 0 where it never became one.
        text_bytes: of the text that it holds; of what never became text, its bytes, as far as it held text.
        reason: the rule that fired or what was wrong with the file; empty where the fate says it all.

    Raises:
        ValueError: there is no such fate.
    """

    fate: str
    bytes: int
    documents: int = 0
    text_bytes: int = 0
    reason: str = ""

    def __post_init__(self) -> None:
        if self.fate not in FATES:
            raise ValueError(f"fate {self.fate!r} is none of {', '.join(FATES)}")


@dataclass(frozen=True)
class FormatCard:
    """Files of one format: what they are, what was made of them, what was lost on the way.

    `formulas` counts all that were seen, `formulas_lost` those of them that did not reach the text; `pages_lost` are
    pages that were set aside because their formulas were lost.
    """

    format: str
    files: int
    bytes: int
    documents: int
    text_bytes: int
    formulas: int = 0
    formulas_lost: int = 0
    pages: int = 0
    pages_lost: int = 0


@dataclass(frozen=True)
class LeftOutFile:
    """A file, or a part of one, that could not be read."""

    origin: str
    reason: str
    bytes: int = 0


@dataclass(frozen=True)
class SourceCard:
    """One source of text.

    Args:
        group: domain, general or dialog.
        input_bytes: of all its files, unpacked; what the fates must add up to.
        fates: what became of them; several entries of one fate differ in their reason.
        languages: ISO 639-1 code -> text bytes; empty where languages were not identified.
        lengths: documents that are kept or held out, by their length in characters: NUM_LENGTHS columns, see
            `length_column`; empty where they were not counted.
        licences: SPDX name -> documents; "" where none is known.
        encodings: what was found -> files, such as {"utf-8": 40, "cp1252": 2, "mended": 1}.
        unreadable: examples, the rest is in the ledger.
        unreadable_parts: how many there are in all.

    Raises:
        ValueError: `lengths` has neither NUM_LENGTHS columns nor none.
    """

    name: str
    group: str
    input_bytes: int
    fates: tuple[FateCard, ...]
    formats: tuple[FormatCard, ...] = ()
    languages: Mapping[str, int] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    licences: Mapping[str, int] = field(default_factory=dict)
    encodings: Mapping[str, int] = field(default_factory=dict)
    unreadable: tuple[LeftOutFile, ...] = ()
    unreadable_parts: int = 0

    def __post_init__(self) -> None:
        if self.lengths and len(self.lengths) != NUM_LENGTHS:
            raise ValueError(f"lengths of {self.name!r}: {len(self.lengths)} columns, not {NUM_LENGTHS}")

    @property
    def ledger_closes(self) -> bool:
        """Whether every byte of the input has exactly one fate."""
        return sum(fate.bytes for fate in self.fates) == self.input_bytes

    def bytes_of(self, fate: str) -> int:
        """Bytes of the input that came to this end."""
        return sum(each.bytes for each in self.fates if each.fate == fate)

    def documents_of(self, fate: str) -> int:
        """Documents that came to this end."""
        return sum(each.documents for each in self.fates if each.fate == fate)

    def text_bytes_of(self, fate: str) -> int:
        """Bytes of text that came to this end."""
        return sum(each.text_bytes for each in self.fates if each.fate == fate)

    @property
    def text_bytes_read(self) -> int:
        """Bytes of text that its files hold, repetitions included."""
        return sum(each.text_bytes for each in self.fates)

    @property
    def lost_share(self) -> float:
        """Share of the text that the rules threw away, from 0 to 1. A duplicate is not lost: another one is there."""
        return self.text_bytes_of("rejected") / max(self.text_bytes_read, 1)


@dataclass(frozen=True)
class RuleExample:
    """A document that a rule fired on: what the rule measured there, and where the text begins."""

    origin: str
    value: float | str
    limit: float | str
    excerpt: str


@dataclass(frozen=True)
class RuleCard:
    """One rule on the text of one group.

    Args:
        rule: its name in the settings, such as too_short.
        sentence: what it says, such as "Characters a document has at least".
        action: annotate (named and kept) or drop (left out).
        documents_fired, text_bytes_fired: where it fired; of a document that several rules fire on, each counts it.
        documents_seen, text_bytes_seen: all that it looked at.
    """

    rule: str
    sentence: str
    group: str
    action: str
    documents_fired: int
    documents_seen: int
    text_bytes_fired: int
    text_bytes_seen: int
    examples: tuple[RuleExample, ...] = ()

    @property
    def reject_rate(self) -> float:
        """Share of the documents that it fired on, from 0 to 1."""
        return self.documents_fired / max(self.documents_seen, 1)

    @property
    def text_rate(self) -> float:
        """Share of the text that it fired on, from 0 to 1."""
        return self.text_bytes_fired / max(self.text_bytes_seen, 1)


@dataclass(frozen=True)
class DuplicateCluster:
    """Documents that say the same: how many, the one that stays, and one that does not."""

    count: int
    kept_origin: str
    other_origin: str
    kind: str = "near"
    """near, or exact."""


@dataclass(frozen=True)
class DuplicatesCard:
    """Text that occurs more than once. The ledger says what was left out of it, this what was found.

    Args:
        exact_documents: copies, the one that stays not counted; likewise for all below.
        near_documents: None where near-duplicates were not looked for.
        paragraphs: paragraphs that occurred in another document before; None: not looked for.
        jaccard: share of common word 5-grams from which two documents are near-duplicates.
        clusters: the largest ones.
    """

    exact_documents: int
    exact_text_bytes: int
    near_documents: int | None = None
    near_text_bytes: int = 0
    paragraphs: int | None = None
    paragraph_text_bytes: int = 0
    jaccard: float = 0.75
    clusters: tuple[DuplicateCluster, ...] = ()


@dataclass(frozen=True)
class TemplateFamily:
    """Documents that are equal but for their numbers. They are counted, never left out for it."""

    count: int
    origin: str
    excerpt: str


@dataclass(frozen=True)
class ExamCard:
    """One set of examination questions: how many there are, and how many of them the text holds."""

    name: str
    questions: int
    questions_found: int
    documents: int
    text_bytes: int = 0


@dataclass(frozen=True)
class ExamExample:
    """A document that holds a question; `overlap` is the share of the question's n-grams, from 0 to 1."""

    exam: str
    question: str
    origin: str
    overlap: float


@dataclass(frozen=True)
class ContaminationCard:
    """Examination questions in the text; `action` is annotate or drop."""

    action: str
    exams: tuple[ExamCard, ...]
    examples: tuple[ExamExample, ...] = ()


@dataclass(frozen=True)
class PersonalDataCard:
    """Addresses, numbers and keys in the text, by their kind; `action` is report or mask."""

    action: str
    counts: Mapping[str, int]
    documents: int = 0


@dataclass(frozen=True)
class TokenRow:
    """Training text of one source as tokens.

    Args:
        tokens: without what is held out.
        planned_tokens: what the plan wants to learn from it, each reading counted; None where there is no plan.
    """

    source: str
    group: str
    tokens: int
    text_bytes: int
    planned_tokens: int | None = None

    @property
    def bytes_per_token(self) -> float | None:
        """None where there are no tokens."""
        return self.text_bytes / self.tokens if self.tokens else None

    @property
    def epochs(self) -> float | None:
        """How often the plan reads it; None where there is no plan or no text."""
        return None if self.planned_tokens is None or not self.tokens else self.planned_tokens / self.tokens

    @property
    def verdict(self) -> EpochsVerdict | None:
        """What is to be said of so many epochs."""
        return None if self.epochs is None else epochs_verdict(self.epochs)


@dataclass(frozen=True)
class TokensCard:
    """The text as tokens.

    Args:
        estimated: from bytes, before there is a tokenizer.
        vocabulary: of the tokenizer.
        model_parameters: of the model that is planned.
        allow_repeats: whether more than 40 epochs were allowed in the settings.
    """

    rows: tuple[TokenRow, ...]
    estimated: bool = False
    vocabulary: int | None = None
    model_parameters: int | None = None
    allow_repeats: bool = False


@dataclass(frozen=True)
class DataCard:
    """A corpus, or a folder that is to become one.

    Args:
        title: the name of the folder or of the run.
        made_from: the path or the configuration that it was made from.
        rules: by group in the order in which they ran; empty where none was run.
        tokens: None before there is a tokenizer and a plan; they are then estimated from the bytes.
        templates: the largest families first; None: not looked for.
        warnings: sentences of whoever filled this in, beyond what follows from the figures.
        dummy: noise instead of text.
    """

    title: str
    made_from: str
    sources: tuple[SourceCard, ...]
    rules: tuple[RuleCard, ...] = ()
    duplicates: DuplicatesCard | None = None
    contamination: ContaminationCard | None = None
    personal_data: PersonalDataCard | None = None
    templates: tuple[TemplateFamily, ...] | None = None
    tokens: TokensCard | None = None
    warnings: tuple[str, ...] = ()
    dummy: bool = False

    def bytes_of(self, fate: str) -> int:
        """Bytes of the input of all sources that came to this end."""
        return sum(source.bytes_of(fate) for source in self.sources)

    @property
    def input_bytes(self) -> int:
        """Bytes of the input of all sources."""
        return sum(source.input_bytes for source in self.sources)

    @property
    def ledger_closes(self) -> bool:
        """Whether that of every source does."""
        return all(source.ledger_closes for source in self.sources)
