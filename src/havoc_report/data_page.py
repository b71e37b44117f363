"""The page about a corpus: what there is, what became of it, and what it suffices for."""

from __future__ import annotations

from collections.abc import Sequence

from havoc_report.data_plots import Kind, StackedRow, stacked_rows
from havoc_report.data_record import FATES, DataCard, LeftOutFile, SourceCard
from havoc_report.data_rules import supported_parameters
from havoc_report.data_sections import (
    contamination_parts,
    duplicate_parts,
    formula_parts,
    language_parts,
    length_parts,
    licence_parts,
    personal_parts,
)
from havoc_report.data_text_sections import rule_parts, size_parts, token_parts
from havoc_report.data_verdict import (
    FATE_WORDS,
    findings,
    lead_sentences,
    plural,
    short_count,
    tokens_of,
)
from havoc_report.disclosure import Disclosure
from havoc_report.page import Bullets, Fact, Facts, Note, Page, Paragraph, Part, Section
from havoc_report.run_results import both_widths
from havoc_report.tables import Cell, Column, Table, count, data_size, share_of

_TONES = {
    "kept": 0,
    "held_out": 5,
    "duplicate": 4,
    "near_duplicate": 6,
    "contaminated": 3,
    "rejected": 1,
    "unreadable": 7,
}
_SHOWN_SOURCES = 24
_SHOWN_FILES = 12


def data_page(card: DataCard) -> Page:
    """The page of a corpus; `render` or `write_page` makes HTML of it. The same card gives the same page."""
    banners: tuple[Note, ...] = ()
    if card.dummy:
        text = "The text is generated noise, to try the machinery out. No figure on this page says anything about a corpus."
        banners = (Note(text, kind="danger", title="DUMMY DATA"),)
    sections = (
        Section("In short", _short(card)),
        Section("What to do about it", _to_do(card)),
        Section("Where the bytes went", _fates(card)),
        Section("What is in the files", _files(card)),
        Section("How long the documents are", length_parts(card)),
        Section("Languages", language_parts(card)),
        Section("What the rules say", rule_parts(card)),
        Section("What occurs more than once", duplicate_parts(card)),
        Section("Formulas", formula_parts(card)),
        Section("Exam questions in the text", contamination_parts(card)),
        Section("Personal data", personal_parts(card)),
        Section("Licences", licence_parts(card)),
        Section("Tokens and readings", token_parts(card)),
        Section("What it suffices for", size_parts(card)),
        Section("What could not be read", _unreadable(card)),
        Section("The ledger", _ledger(card)),
    )
    return Page(
        title=card.title,
        subtitle=f"Made from {card.made_from}",
        sections=tuple(section for section in sections if section.parts),
        kicker="HAVOC data card" + (", DUMMY DATA" if card.dummy else ""),
        banners=banners,
        footer="Every figure here was counted in the text itself, unless it says that it is an estimate.",
    )


def _short(card: DataCard) -> tuple[Part, ...]:
    tokens = tokens_of(card)
    unique = sum(row.tokens for row in tokens.rows)
    kept = sum(source.text_bytes_of("kept") for source in card.sources)
    documents = sum(source.documents_of("kept") for source in card.sources)
    vocabulary = "" if tokens.vocabulary is None else f"vocabulary {count(tokens.vocabulary)}"
    used = card.bytes_of("kept") + card.bytes_of("held_out")
    facts = Facts(
        (
            Fact("Text to train on", data_size(kept), plural(documents, "document")),
            Fact("Tokens", short_count(unique), "estimated from the bytes" if tokens.estimated else vocabulary),
            Fact("Suffices for", short_count(supported_parameters(unique)), "parameters, read four times"),
            Fact("Bytes used", share_of(used, card.input_bytes), f"of {data_size(card.input_bytes)}"),
            Fact("Sources", count(len(card.sources)), _group_text(card)),
            Fact(
                "Ledger",
                "closes" if card.ledger_closes else "does not close",
                f"{count(card.input_bytes)} bytes",
            ),
        )
    )
    leads = [Paragraph(text, lead=True) for text in lead_sentences(card)]
    return (*leads, facts)


def _to_do(card: DataCard) -> tuple[Part, ...]:
    notes = tuple(Note(each.text, each.kind, each.title) for each in findings(card))
    return notes or (Note("Nothing was found that stands in the way of training on this text.", title="Nothing"),)


def _group_text(card: DataCard) -> str:
    groups = dict.fromkeys(source.group for source in card.sources)
    return ", ".join(f"{sum(source.group == group for source in card.sources)} {group}" for group in groups)


def _fates(card: DataCard) -> tuple[Part, ...]:
    if not card.input_bytes:
        return ()
    largest = sorted(card.sources, key=lambda source: (-source.input_bytes, source.name))
    rows = [StackedRow(source.name, _sizes((source,))) for source in largest[:_SHOWN_SOURCES]]
    rest = largest[_SHOWN_SOURCES:]
    if rest:
        rows.append(StackedRow(f"{count(len(rest))} smaller sources", _sizes(rest)))
    if len(card.sources) > 1:
        rows.insert(0, StackedRow("All sources", _sizes(card.sources)))
    kinds = [Kind(FATE_WORDS[fate], _TONES[fate]) for fate in FATES]
    chart = both_widths(
        lambda px: stacked_rows(
            rows, kinds, title="What became of every byte of the input", number=data_size, width_px=px
        ),
        "Each bar is one source, as long as the others whatever its size. To the byte: in the ledger at the end.",
    )
    return (chart, _lost_table(card))


def _sizes(sources: Sequence[SourceCard]) -> tuple[float, ...]:
    return tuple(float(sum(source.bytes_of(fate) for source in sources)) for fate in FATES)


def _lost_table(card: DataCard) -> Table:
    heads = (
        Column("Source"),
        Column("Text read", "right", data_size),
        Column("Rules took", "right"),
        Column("Duplicates", "right"),
        Column("Exam questions", "right"),
        Column("Held out", "right"),
        Column("To train on", "right", data_size),
    )
    rows = [_lost_cells(source.name, (source,)) for source in card.sources]
    if len(rows) > 1:
        rows.append(_lost_cells("all", card.sources))
    caption = "The text itself, markup and unreadable files not counted, and what share of it was taken out."
    return Table(caption, heads, tuple(rows), strong_rows=(len(rows) - 1,) if len(rows) > 1 else ())


def _lost_cells(name: str, sources: Sequence[SourceCard]) -> tuple[Cell, ...]:
    size = {fate: sum(source.text_bytes_of(fate) for source in sources) for fate in FATES}
    whole = sum(source.text_bytes_read for source in sources)
    shares = (size["rejected"], size["duplicate"] + size["near_duplicate"], size["contaminated"], size["held_out"])
    return (name, whole, *(share_of(part, whole) for part in shares), size["kept"])


def _files(card: DataCard) -> tuple[Part, ...]:
    heads = (
        Column("Source"),
        Column("Format"),
        Column("Files", "right", count),
        Column("Size", "right", data_size),
        Column("Documents", "right", count),
        Column("Text", "right", data_size),
    )
    rows: list[tuple[Cell, ...]] = [
        (source.name, each.format, each.files, each.bytes, each.documents, each.text_bytes)
        for source in card.sources
        for each in source.formats
    ]
    if not rows:
        return ()
    every = [each for source in card.sources for each in source.formats]
    if len(rows) > 1:
        sizes = [
            sum(values) for values in zip(*((e.files, e.bytes, e.documents, e.text_bytes) for e in every), strict=True)
        ]
        rows.append(("all", None, *sizes))
    strong = (len(rows) - 1,) if len(rows) > 1 else ()
    parts: list[Part] = [
        Table(
            "Files by format, unpacked; text is what was made of them, before anything was left out.",
            heads,
            tuple(rows),
            strong,
        )
    ]
    encodings: list[tuple[Cell, ...]] = [
        (source.name, name, number)
        for source in card.sources
        for name, number in sorted(source.encodings.items(), key=lambda entry: (-entry[1], entry[0]))
    ]
    if encodings:
        caption = "How the text was encoded, and what was mended. Characters were never normalised."
        parts.append(
            Table(caption, (Column("Source"), Column("Found"), Column("Files", "right", count)), tuple(encodings))
        )
    return tuple(parts)


def _unreadable(card: DataCard) -> tuple[Part, ...]:
    parts = sum(source.unreadable_parts for source in card.sources)
    if not parts and not card.bytes_of("unreadable"):
        return (Paragraph("Every file that was found could be read."),) if card.sources else ()
    shown: list[Part] = [
        Paragraph(
            f"{plural(parts, 'file or part of a file', 'files or parts of files')}, "
            f"{data_size(card.bytes_of('unreadable'))} in all. The ledger names every one of them."
        )
    ]
    for source in card.sources:
        if not source.unreadable_parts and not source.unreadable:
            continue
        items = [_file_text(each) for each in source.unreadable[:_SHOWN_FILES]]
        more = max(source.unreadable_parts, len(source.unreadable)) - len(items)
        if more > 0:
            items.append(f"and {count(more)} more")
        shown.append(Disclosure(source.name, (Bullets(tuple(items)),), plural(source.unreadable_parts, "part")))
    return tuple(shown)


def _file_text(file: LeftOutFile) -> str:
    return f"{file.origin}: {file.reason}" + (f" ({data_size(file.bytes)})" if file.bytes else "")


def _ledger(card: DataCard) -> tuple[Part, ...]:
    if not card.sources:
        return ()
    said = (
        "Every byte of the input has exactly one fate: the sums below are the sizes of the files, to the byte."
        if card.ledger_closes
        else "The sums below are not the sizes of the files: bytes are missing or counted twice."
    )
    heads = (
        Column("Fate"),
        Column("Why"),
        Column("Bytes", "right", count),
        Column("Share", "right"),
        Column("Documents", "right", count),
    )
    parts: list[Part] = [Paragraph(said)]
    for source in card.sources:
        order = sorted(source.fates, key=lambda each: (FATES.index(each.fate), -each.bytes, each.reason))
        rows: list[tuple[Cell, ...]] = [
            (FATE_WORDS[each.fate], each.reason, each.bytes, share_of(each.bytes, source.input_bytes), each.documents)
            for each in order
        ]
        whole = sum(each.bytes for each in source.fates)
        rows.append(
            ("sum", "", whole, share_of(whole, source.input_bytes), sum(each.documents for each in source.fates))
        )
        rows.append(("input", "", source.input_bytes, None, None))
        state = "closes" if source.ledger_closes else f"does not close: {count(source.input_bytes - whole)} bytes apart"
        table = Table(f"{source.name} ({source.group}): {state}.", heads, tuple(rows), (len(rows) - 2, len(rows) - 1))
        parts.append(table if len(card.sources) <= 3 else Disclosure(source.name, (table,), state))
    return tuple(parts)
