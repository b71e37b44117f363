"""The parts of a run's page that say how good the model is: held-out text beside compressors, the exam."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from havoc_report.page import Figure, Paragraph, Part, Svg
from havoc_report.plots import NARROW_PX, WIDE_PX, Bar, Reference, Series, bar_chart, line_chart
from havoc_report.run_record import CompressionRow, Exam, ExamPart, RunRecord
from havoc_report.tables import Cell, Column, Table, count, data_size, fixed, percent
from havoc_report.verdict import total_row

_bits = fixed(3)


def both_widths(draw: Callable[[int], Svg], caption: str) -> Figure:
    """The chart that `draw` makes of a width, for a desk and for a telephone."""
    return Figure(draw(WIDE_PX), caption, narrow=draw(NARROW_PX))


def held_out_parts(record: RunRecord) -> tuple[Part, ...]:
    """Bits per byte by group during the training, and at the end beside general compressors."""
    parts: list[Part] = []
    validation = record.validation
    if validation.groups:
        lines = [
            Series(g.group, validation.steps, g.bits_per_byte, markers=True, dashed=n % 2 == 1)
            for n, g in enumerate(validation.groups)
        ]
        rows = tuple((g.group, _last(g.bits_per_byte), _last(g.perplexity)) for g in validation.groups)
        parts.append(
            both_widths(
                lambda px: line_chart(
                    lines, x_label="step", y_label="bits per byte", title="Held-out text during training", width_px=px
                ),
                "Measured on a fixed part of the held-out text. Lower is better; 8 is what plain bytes take.",
            )
        )
        columns = (Column("Group"), Column("Bits per byte", "right", _bits), Column("Perplexity per token", "right"))
        parts.append(Table("The last measurement during training.", columns, rows))
    comparison = record.comparison
    if comparison is None or not comparison.rows:
        return (*parts, Paragraph("The model was not compared with general compressors."))
    total = total_row(comparison)
    rows_shown = (*comparison.rows, *(() if total is None else (total,)))
    parts.append(
        both_widths(
            lambda px: bar_chart(
                _compression_bars(rows_shown),
                x_label="bits per byte, lower is better",
                number=_bits,
                title="The model beside general compressors",
                width_px=px,
            ),
            f"Whiskers: 95 % interval, {comparison.interval_method}. \u201cprimed\u201d: the compressor had read the "
            "training text first, as the model had. The size of the model itself is not counted.",
        )
    )
    names = [compressor.name for compressor in comparison.rows[0].compressors]
    heads = [
        Column("Group"),
        Column("Held-out text", "right", data_size),
        Column("Model", "right", _bits),
        Column("95 % interval", "right"),
    ]
    heads += [Column(f"{name}{end}", "right", _bits) for name in names for end in ("", ", primed")]
    parts.append(
        Table(
            f"Bits per byte on all held-out text. Interval: 95 %, {comparison.interval_method}. Priming helps a "
            "compressor only as far as it can look back: gzip 32 KiB, xz and zstd some megabytes, by their level.",
            tuple(heads),
            tuple(_compression_cells(row) for row in rows_shown),
            strong_rows=() if total is None else (len(rows_shown) - 1,),
        )
    )
    return tuple(parts)


def _last(values: Sequence[float]) -> float | None:
    return values[-1] if values else None


def _compression_bars(rows: Sequence[CompressionRow]) -> list[Bar]:
    bars = []
    for row in rows:
        bars.append(Bar("model", row.model, row.low, row.high, tone=0, group=row.group))
        for compressor in row.compressors:
            primed = compressor.primed is not None
            value = compressor.primed if primed else compressor.alone
            bars.append(Bar(compressor.name + (", primed" if primed else ""), value, tone=7, group=row.group))
    return bars


def _compression_cells(row: CompressionRow) -> tuple[Cell, ...]:
    cells: list[Cell] = [row.group, row.text_bytes, row.model, _interval(row.low, row.high, _bits)]
    for compressor in row.compressors:
        cells += [compressor.alone, compressor.primed]
    return tuple(cells)


def _interval(low: float | None, high: float | None, form: Callable[[float], str]) -> str | None:
    return None if low is None or high is None else f"{form(low)} to {form(high)}"


def _touched_parts(exam: Exam, method: str) -> tuple[Part, ...]:
    """How many questions the training text held, and the score with and without them."""
    if exam.touched is None:
        return (Paragraph("Whether the training text holds its questions was not looked at."),)
    if exam.touched == 0:
        said = "all of it was searched, documents that were left out included, so there is one score."
        return (Paragraph(f"None of the {count(exam.count)} questions was found in the training text: {said}"),)
    said = f"{count(exam.touched)} of the {count(exam.count)} questions were found in the training text"
    if exam.untouched is None:
        return (Paragraph(f"{said}: there is no score without them, and this one says nothing about new questions."),)
    heads = (
        Column("Questions"),
        Column("Right", "right", count),
        Column("Asked", "right", count),
        Column("Score", "right", percent),
        Column(method, "right"),
    )
    rows = (
        _part_cells("all items", ExamPart(exam.correct, exam.count, exam.low, exam.high)),
        _part_cells("items not found in the training text", exam.untouched),
    )
    return (
        Paragraph(f"{said}, or in documents that were left out of it. The score without them is the one to trust."),
        Table("Right answers with and without what the training text held.", heads, rows, strong_rows=(1,)),
    )


def _part_cells(name: str, part: ExamPart) -> tuple[Cell, ...]:
    return (name, part.correct, part.count, part.correct / part.count, _interval(part.low, part.high, percent))


def exam_parts(record: RunRecord) -> tuple[Part, ...]:
    """The exam beside guessing, as a whole and by family of questions."""
    exam = record.exam
    if exam is None or exam.count == 0:
        return (Paragraph("No exam was taken."),)
    method = f"95 % {exam.interval_method} interval"
    guess = Reference(f"guessing: {percent(exam.guess)}", exam.guess)
    all_bar = [Bar("all questions", exam.score, exam.low, exam.high, tone=0)]
    parts: list[Part] = [
        both_widths(
            lambda px: bar_chart(
                all_bar,
                x_label="right answers",
                title="Exam beside guessing",
                references=(guess,),
                number=percent,
                width_px=px,
            ),
            f"Whiskers: {method}.",
        ),
    ]
    parts += _touched_parts(exam, method)
    if exam.families:
        parts += [_family_figure(exam, method), _family_table(exam, method)]
    return tuple(parts)


def _family_figure(exam: Exam, method: str) -> Figure:
    bars = [
        Bar(
            f.name,
            f.correct / f.count if f.count else None,
            f.low,
            f.high,
            tone=0,
            marks=(Reference("guessing", f.guess),),
        )
        for f in exam.families
    ]
    return both_widths(
        lambda px: bar_chart(bars, x_label="right answers", title="Exam by family", number=percent, width_px=px),
        f"Whiskers: {method}; ticks: what guessing scores. Few questions make wide intervals.",
    )


def _family_table(exam: Exam, method: str) -> Table:
    heads = (
        Column("Family"),
        Column("Right", "right", count),
        Column("Questions", "right", count),
        Column("Score", "right", percent),
        Column(method, "right"),
        Column("Guessing", "right", percent),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            f.name,
            f.correct,
            f.count,
            f.correct / f.count if f.count else None,
            _interval(f.low, f.high, percent),
            f.guess,
        )
        for f in exam.families
    ]
    rows.append(("all", exam.correct, exam.count, exam.score, _interval(exam.low, exam.high, percent), exam.guess))
    return Table("Right answers by family of questions.", heads, tuple(rows), strong_rows=(len(rows) - 1,))
