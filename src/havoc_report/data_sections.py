"""Sections of a data card about the documents: lengths, languages, repetitions, formulas, exams, persons, licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

from havoc_report.axes import axis_text
from havoc_report.data_plots import Columns, Layer, histogram
from havoc_report.data_record import LENGTH_EDGES, NUM_LENGTHS, DataCard, DuplicatesCard, SourceCard, TemplateFamily
from havoc_report.data_verdict import names_of, plural
from havoc_report.disclosure import Disclosure, Excerpt
from havoc_report.page import Bullets, Fact, Facts, Paragraph, Part
from havoc_report.plots import Bar, Share, bar_chart, stacked_bar
from havoc_report.run_results import both_widths
from havoc_report.tables import NOTHING, Cell, Column, Table, count, data_size, percent, share_of

_LAYERS = 7
"""Pieces of a chart that colours can still tell apart; the rest is summed up in grey."""
_GREY = 7


def length_parts(card: DataCard) -> tuple[Part, ...]:
    """A histogram of the lengths, the sources on top of each other."""
    counted = [source for source in card.sources if any(source.lengths)]
    if not counted:
        return (Paragraph("The lengths of the documents were not counted."),) if card.sources else ()
    largest = sorted(counted, key=lambda source: (-sum(source.lengths), source.name))
    shown, rest = (largest, []) if len(largest) <= _LAYERS else (largest[: _LAYERS - 1], largest[_LAYERS - 1 :])
    totals = _summed(counted)
    first = max(0, next(place for place, number in enumerate(totals) if number) - 1)
    last = min(NUM_LENGTHS, NUM_LENGTHS - next(place for place, number in enumerate(reversed(totals)) if number) + 1)
    layers = [Layer(source.name, source.lengths[first:last], tone) for tone, source in enumerate(shown)]
    if rest:
        layers.append(Layer(f"{count(len(rest))} more", _summed(rest)[first:last], _GREY))
    edges = (0, *LENGTH_EDGES, 0)[first : last + 1]
    columns = Columns(tuple(_decade_text(edge) for edge in edges), "characters, logarithmic")
    chart = both_widths(
        lambda px: histogram(layers, columns, y_label="documents", title="Length of the documents", width_px=px),
        "Documents that are kept or held out. Four columns a decade; what is shorter than 10 characters or longer than "
        "10 million is in the outermost ones.",
    )
    number = sum(totals)
    short, long = sum(totals[: _column_of(100)]), sum(totals[_column_of(100_000) :])
    said = (
        f"Half of {plural(number, 'document')} have {_median_text(totals)} characters; {share_of(short, number)} are "
        f"shorter than 100, {share_of(long, number)} have 100,000 or more."
    )
    return (Paragraph(said), chart)


def _summed(sources: Sequence[SourceCard]) -> tuple[int, ...]:
    return tuple(sum(values) for values in zip(*(source.lengths for source in sources), strict=True))


def _column_of(edge: int) -> int:
    return LENGTH_EDGES.index(edge) + 1


def _median_text(totals: Sequence[int]) -> str:
    """The column that the middle document is in, as far as the histogram knows it."""
    half = (sum(totals) + 1) // 2
    place = next(place for place, seen in enumerate(accumulate(totals)) if seen >= half)
    if place == 0:
        return f"fewer than {LENGTH_EDGES[0]}"
    if place == NUM_LENGTHS - 1:
        return f"at least {count(LENGTH_EDGES[place - 1])}"
    return f"fewer than {count(LENGTH_EDGES[place])}"


def _decade_text(edge: int) -> str:
    return axis_text(edge) if edge and str(edge).strip("0") == "1" else ""


def language_parts(card: DataCard) -> tuple[Part, ...]:
    """One bar for all text, and a table by source where there is more than one language."""
    looked = [source for source in card.sources if source.languages]
    if not looked:
        return (Paragraph("Languages were not identified. To have it done: data.cleaning.languages."),)
    total = Counter[str]()
    for source in looked:
        total.update(source.languages)
    order = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
    shares = [Share(code or "not told", size) for code, size in order[: _LAYERS - 1]]
    if len(order) >= _LAYERS:
        shares.append(Share(f"{count(len(order) - _LAYERS + 1)} more", sum(size for _, size in order[_LAYERS - 1 :])))
    chart = both_widths(
        lambda px: stacked_bar(shares, title="Languages of the text", number=data_size, width_px=px),
        "Identified document by document; formulas and code have no language, and short texts are often taken for another.",
    )
    if len(looked) == 1 or len(order) == 1:
        return (chart,)
    shown = [code for code, _ in order[:5]]
    heads = (Column("Source"), *(Column(code or "not told", "right") for code in shown), Column("Other", "right"))
    rows = []
    for source in looked:
        whole = sum(source.languages.values())
        sizes = [source.languages.get(code, 0) for code in shown]
        rows.append(
            (source.name, *(share_of(size, whole) if size else NOTHING for size in (*sizes, whole - sum(sizes))))
        )
    return (chart, Table("Languages by source, in shares of its text.", heads, tuple(rows)))


def duplicate_parts(card: DataCard) -> tuple[Part, ...]:
    """Copies, near copies, repeated paragraphs, and families that differ in their numbers."""
    duplicates = card.duplicates
    parts: list[Part] = []
    if duplicates is None:
        parts.append(Paragraph("Whether text occurs more than once was not looked at."))
    else:
        parts += _duplicate_parts(duplicates)
    if card.templates is None:
        parts.append(Paragraph("Families of documents that differ only in numbers were not looked for."))
    elif not card.templates:
        parts.append(Paragraph("No two documents are equal but for their numbers."))
    else:
        parts += _template_parts(card.templates)
    return tuple(parts)


def _duplicate_parts(card: DuplicatesCard) -> list[Part]:
    near = NOTHING if card.near_documents is None else count(card.near_documents)
    near_size = "not looked for" if card.near_documents is None else data_size(card.near_text_bytes)
    paragraphs = NOTHING if card.paragraphs is None else count(card.paragraphs)
    paragraph_size = "not looked for" if card.paragraphs is None else data_size(card.paragraph_text_bytes)
    facts = Facts(
        (
            Fact("Equal documents", count(card.exact_documents), data_size(card.exact_text_bytes)),
            Fact("Near-duplicates", near, near_size),
            Fact("Repeated paragraphs", paragraphs, paragraph_size),
        )
    )
    said = (
        "The one that stays is not counted, and does not depend on the order of the files. Near-duplicates share "
        f"{percent(card.jaccard)} or more of their word 5-grams, digits and operators included, so that exercises with "
        "other numbers are none."
    )
    parts: list[Part] = [facts, Paragraph(said)]
    for cluster in card.clusters:
        kind = "equal documents" if cluster.kind == "exact" else "documents that say nearly the same"
        items = (f"stays: {cluster.kept_origin}", f"one of the others: {cluster.other_origin}")
        parts.append(Disclosure(f"{count(cluster.count)} {kind}", (Bullets(items),), cluster.kept_origin))
    return parts


def _template_parts(families: Sequence[TemplateFamily]) -> list[Part]:
    number = sum(family.count for family in families)
    said = (
        f"{plural(number, 'document')} belong to {plural(len(families), 'template family', 'template families')}: they "
        "differ only in numbers. Exercises may want that; logs and tables rarely do. Nothing was left out for it."
    )
    parts: list[Part] = [Paragraph(said)]
    for family in families:
        title = f"{count(family.count)} files differ only in numbers"
        parts.append(Disclosure(title, (Excerpt(family.origin, family.excerpt),), family.origin))
    return parts


def formula_parts(card: DataCard) -> tuple[Part, ...]:
    """How many formulas reached the text, by source and format."""
    met = [(source, each) for source in card.sources for each in source.formats if each.formulas or each.pages]
    if not met:
        return (Paragraph("No reader of these formats counts formulas, or there were none."),) if card.sources else ()
    rows: list[tuple[Cell, ...]] = [
        (
            source.name,
            each.format,
            each.formulas,
            each.formulas_lost,
            share_of(each.formulas_lost, each.formulas) if each.formulas else None,
            each.pages or None,
            each.pages_lost if each.pages else None,
        )
        for source, each in met
    ]
    heads = (
        Column("Source"),
        Column("Format"),
        Column("Formulas", "right", count),
        Column("Lost", "right", count),
        Column("Share lost", "right"),
        Column("Pages", "right", count),
        Column("Set aside", "right", count),
    )
    caption = (
        "A formula is lost when its file shows one and the text does not hold it. Pages set aside are not trained on."
    )
    table = Table(caption, heads, tuple(rows))
    if not any(each.formulas_lost for _, each in met):
        return (Paragraph("Every formula that was seen reached the text."), table)
    bars = [
        Bar(f"{source.name}, {each.format}", each.formulas_lost / each.formulas, tone=1)
        for source, each in met
        if each.formulas
    ]
    chart = both_widths(
        lambda px: bar_chart(
            bars,
            x_label="share of the formulas",
            title="Formulas lost",
            number=lambda value: share_of(value, 1.0),
            width_px=px,
        ),
        "",
    )
    return (chart, table)


def contamination_parts(card: DataCard) -> tuple[Part, ...]:
    """Which exams were looked for, and how much of each the text holds."""
    looked = card.contamination
    if looked is None:
        return (Paragraph("Whether the text holds questions of examinations was not looked at."),)
    if not looked.exams:
        return (Paragraph("No examination was given to look for."),)
    done = "were left out" if looked.action == "drop" else "were named and kept"
    heads = (
        Column("Exam"),
        Column("Questions", "right", count),
        Column("In the text", "right", count),
        Column("Share", "right"),
        Column("Documents", "right", count),
        Column("Text", "right", data_size),
    )
    rows: list[tuple[Cell, ...]] = [
        (e.name, e.questions, e.questions_found, share_of(e.questions_found, e.questions), e.documents, e.text_bytes)
        for e in looked.exams
    ]
    parts: list[Part] = [Table(f"Questions found in the text. The documents that hold one {done}.", heads, tuple(rows))]
    for each in looked.examples:
        where = f"holds {percent(each.overlap)} of it"
        parts.append(Disclosure(each.exam, (Excerpt(each.origin, each.question, where),), each.origin))
    return tuple(parts)


def personal_parts(card: DataCard) -> tuple[Part, ...]:
    """What looks like personal data, by kind."""
    looked = card.personal_data
    if looked is None:
        return (Paragraph("Personal data was not looked for."),)
    found = sorted(((n, kind) for kind, n in looked.counts.items() if n), key=lambda entry: (-entry[0], entry[1]))
    if not found:
        return (Paragraph("Nothing was found that looks like personal data."),)
    done = (
        "Words such as <|email|> stand in its place."
        if looked.action == "mask"
        else "It was counted and left as it is."
    )
    inside = f" in {plural(looked.documents, 'document')}" if looked.documents else ""
    bars = [Bar(kind, number, tone=3) for number, kind in found]
    chart = both_widths(
        lambda px: bar_chart(bars, x_label="places", title="What looks like personal data", number=count, width_px=px),
        "By pattern only: in tables of measurements some numbers look like telephone numbers.",
    )
    return (Paragraph(f"{plural(sum(n for n, _ in found), 'place')}{inside}. {done}"), chart)


def licence_parts(card: DataCard) -> tuple[Part, ...]:
    """Documents by licence, and the sources that they come from."""
    total = Counter[str]()
    for source in card.sources:
        total.update(source.licences)
    if not total:
        return (Paragraph("Licences were not looked for."),) if card.sources else ()
    order = sorted(total.items(), key=lambda entry: (-entry[1], entry[0]))
    whole = sum(total.values())
    heads = (Column("Licence"), Column("Documents", "right", count), Column("Share", "right"), Column("Sources"))
    rows = [
        (
            name or "not known",
            number,
            share_of(number, whole),
            names_of([s.name for s in card.sources if s.licences.get(name)]),
        )
        for name, number in order
    ]
    return (Table("Licences of the documents, as the text or the files beside it say.", heads, tuple(rows)),)
