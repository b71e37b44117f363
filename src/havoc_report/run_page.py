"""The page about one training run: what it came to first, what it cannot do last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from havoc_report.page import (
    Bullets, Code, Fact, Facts, Figure, Note, Page, Paragraph, Part, Sample, Section, Svg,
)  # fmt: skip
from havoc_report.plots import (
    NARROW_PX, WIDE_PX, Bar, Reference, Series, Share, bar_chart, line_chart, stacked_bar,
)  # fmt: skip
from havoc_report.run_record import CompressionRow, Exam, PlanRow, RunRecord
from havoc_report.tables import (
    NOTHING, Cell, Column, Table, cell_text, count, data_size, duration, fixed, percent, significant,
)  # fmt: skip
from havoc_report.verdict import (
    best_compressor, compression_verdict, exam_verdict, learning_verdict, limits_of, total_row,
)  # fmt: skip

__all__ = ["RunRecord", "limits_of", "run_page"]

_bits = fixed(3)


def run_page(record: RunRecord) -> Page:
    """The page of a run. The same record gives the same page, whatever the hour and the machine."""
    banners: tuple[Note, ...] = ()
    if record.dummy_data:
        banners = (
            Note(
                "The model was trained on generated noise, to try the machinery out. No figure on this page "
                "says anything about a language model.",
                kind="danger",
                title="DUMMY DATA",
            ),
        )
    sections = (
        Section("In short", _short(record)),
        Section("How it learnt", _learning(record)),
        Section("Text it had not seen", _held_out(record)),
        Section("Exam", _exam(record)),
        Section("What it writes", _samples(record)),
        Section("What it read", _data(record)),
        Section("Speed, memory, time", _speed(record)),
        Section("Plan and fact", _plan(record)),
        Section("To run it again", _again(record)),
        Section("What it cannot do", _limits(record)),
    )
    return Page(
        title=record.title,
        subtitle=f"{record.started} to {record.finished}, on {record.machine.processor}",
        sections=sections,
        kicker="HAVOC run report",
        banners=banners,
        footer="Every figure here was measured or derived in this run; a dash means that it was not measured.",
    )


def _both(draw: Callable[[int], Svg], caption: str) -> Figure:
    """The chart at both widths."""
    return Figure(draw(WIDE_PX), caption, narrow=draw(NARROW_PX))


def _short(record: RunRecord) -> tuple[Part, ...]:
    parts: list[Part] = []
    if record.ending:
        parts.append(Note(record.ending, kind="warning", title="The run ended before its last step"))
    if record.missing_groups:
        names = ", ".join(record.missing_groups)
        text = f"There was no text for {names}. Its weight was given to the other groups, so the mixture is not the planned one."
        parts.append(Note(text, kind="warning", title="Missing from the mixture"))
    parts.append(Paragraph(compression_verdict(record.comparison), lead=True))
    parts.append(Paragraph(exam_verdict(record.exam), lead=True))
    total = None if record.comparison is None else total_row(record.comparison)
    best = None if total is None else best_compressor(total)
    exam = record.exam
    score, against = (
        (NOTHING, "not taken") if exam is None else (percent(exam.score), f"guessing: {percent(exam.guess)}")
    )
    beside = "" if best is None else f"{best[0]}{', primed' if best[2] else ''}: {_bits(best[1])}"
    parts.append(
        Facts((
            Fact("Bits per byte, held out", cell_text(None if total is None else total.model, _bits), beside),
            Fact("Exam", score, against),
            Fact("Training time", duration(record.speed.total_s), _rate(record.speed.overall_tokens_per_s)),
            Fact("Parameters", significant_count(record.model.parameters), f"{record.model.layers} layers"),
            Fact("Tokens learnt from", significant_count(record.tokens_trained), f"{count(len(record.training.steps))} steps"),
            Fact("Peak memory", cell_text(record.speed.peak_memory_bytes, data_size), record.machine.device),
        ))
    )  # fmt: skip
    return tuple(parts)


def significant_count(value: int) -> str:
    """A count short enough for a tile: 950, 1.23 k, 4.56 million, 7.01 billion."""
    for limit, word in ((10**9, " billion"), (10**6, " million")):
        if value >= limit:
            return significant(value / limit) + word
    return count(value)


def _rate(tokens_per_s: float | None) -> str:
    return "" if tokens_per_s is None else f"{cell_text(tokens_per_s, significant)} tokens/s overall"


def _learning(record: RunRecord) -> tuple[Part, ...]:
    curve = record.training
    window = max(1, len(curve.steps) // 50)
    smooth = running_mean(curve.loss, window)
    lines = [
        Series("each step", curve.steps, curve.loss, faint=True, tone=0),
        Series(f"mean of {window} steps", curve.steps, smooth, tone=0),
    ]
    rate = [Series("learning rate", curve.steps, curve.learning_rate, tone=2)]
    norm = [Series("gradient norm", curve.steps, curve.grad_norm, tone=3)]
    return (
        Paragraph(learning_verdict(curve.loss, record.model.vocabulary)),
        _both(
            lambda px: line_chart(lines if window > 1 else lines[1:], x_label="step", y_label="nats per token",
                                  title="Training loss", width_px=px),
            "Cross-entropy on the training text, before each update.",
        ),
        _both(
            lambda px: line_chart(rate, x_label="step", y_label="per update", title="Learning rate", width_px=px),
            "Warm-up, then decay.",
        ),
        _both(
            lambda px: line_chart(norm, x_label="step", y_label="before clipping", title="Gradient norm", width_px=px),
            "A calm line is a stable run; a spike is a batch that surprised the model.",
        ),
    )  # fmt: skip


def running_mean(values: Sequence[float], window: int) -> tuple[float, ...]:
    """Mean of the last `window` values up to each; those that are not finite are left out, NaN if none is left."""
    means = []
    for end in range(1, len(values) + 1):
        finite = [value for value in values[max(0, end - window) : end] if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return tuple(means)


def _held_out(record: RunRecord) -> tuple[Part, ...]:
    parts: list[Part] = []
    validation = record.validation
    if validation.groups:
        lines = [
            Series(g.group, validation.steps, g.bits_per_byte, markers=True, dashed=n % 2 == 1)
            for n, g in enumerate(validation.groups)
        ]
        rows = tuple((g.group, _last(g.bits_per_byte), _last(g.perplexity)) for g in validation.groups)
        parts.append(
            _both(
                lambda px: line_chart(
                    lines, x_label="step", y_label="bits per byte", title="Held-out text during training", width_px=px
                ),
                "Measured on a fixed part of the held-out text. Lower is better; 8 is no knowledge at all.",
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
        _both(
            lambda px: bar_chart(_compression_bars(rows_shown), x_label="bits per byte, lower is better", number=_bits,
                                 title="The model beside general compressors", width_px=px),
            f"Whiskers: 95 % interval, {comparison.interval_method}. \u201cprimed\u201d: the compressor had read the training text first, "
            "as the model had. The size of the model itself is not counted.",
        )
    )  # fmt: skip
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
            f"Bits per byte on all held-out text. Interval: 95 %, {comparison.interval_method}. gzip looks back 32 KiB only, "
            "so priming can help it little.",
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


def _exam(record: RunRecord) -> tuple[Part, ...]:
    exam = record.exam
    if exam is None or exam.count == 0:
        return (Paragraph("No exam was taken."),)
    method = f"95 % {exam.interval_method} interval"
    guess = Reference(f"guessing: {percent(exam.guess)}", exam.guess)
    all_bar = [Bar("all questions", exam.score, exam.low, exam.high, tone=0)]
    parts: list[Part] = [
        Paragraph(
            "Each question has one right answer that was computed, not written by a model. Text on the same "
            "questions was kept out of training."
        ),
        _both(
            lambda px: bar_chart(all_bar, x_label="right answers", title="Exam beside guessing", references=(guess,),
                                 number=percent, width_px=px),
            f"Whiskers: {method}.",
        ),
    ]  # fmt: skip
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
    return _both(
        lambda px: bar_chart(bars, x_label="right answers", title="Exam by family", number=percent, width_px=px),
        f"Whiskers: {method}; ticks: what guessing scores. Few questions make wide intervals.",
    )


def _family_table(exam: Exam, method: str) -> Table:
    heads = (Column("Family"), Column("Right", "right", count), Column("Questions", "right", count), Column("Score", "right", percent),
             Column(method, "right"), Column("Guessing", "right", percent))  # fmt: skip
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


def _samples(record: RunRecord) -> tuple[Part, ...]:
    if not record.samples:
        return (Paragraph("No samples were drawn."),)
    said = "The prompt is coloured; the rest is the model's, exactly as it came and not chosen from several."
    return (Paragraph(said), *(Sample(s.prompt, s.text, s.settings) for s in record.samples))


def _data(record: RunRecord) -> tuple[Part, ...]:
    if not record.sources:
        return (Paragraph("No sources were recorded."),)
    mixture = Table(
        "The mixture: planned weight, share of the training tokens that it became, and how often each text was read.",
        (Column("Source"), Column("Group"), Column("Planned", "right", percent), Column("Realised", "right", percent),
         Column("Epochs", "right", fixed(2)), Column("Licence")),
        tuple((s.name, s.group, s.planned_weight, s.realised_share, s.epochs, s.licence) for s in record.sources),
    )  # fmt: skip
    sizes: list[tuple[Cell, ...]] = [
        (s.name, s.documents, s.bytes, s.tokens, s.validation_bytes) for s in record.sources
    ]
    sizes.append(
        (
            "all",
            *(
                sum(column)
                for column in zip(
                    *((s.documents, s.bytes, s.tokens, s.validation_bytes) for s in record.sources), strict=True
                )
            ),
        )
    )
    size = Table(
        "The size of each source, and how much of it was held out for measuring.",
        (Column("Source"), Column("Documents", "right", count), Column("Text", "right", data_size), Column("Tokens", "right", count),
         Column("Held out", "right", data_size)),
        tuple(sizes),
        strong_rows=(len(sizes) - 1,),
    )  # fmt: skip
    return (mixture, size)


def _speed(record: RunRecord) -> tuple[Part, ...]:
    speed, curve = record.speed, record.training
    facts = Facts((
        Fact("Steady speed", cell_text(speed.steady_tokens_per_s, significant), "tokens per second after warm-up"),
        Fact("Overall speed", cell_text(speed.overall_tokens_per_s, significant), "tokens per second, everything counted"),
        Fact("Peak memory", cell_text(speed.peak_memory_bytes, data_size), f"of {data_size(record.machine.memory_bytes)}"),
    ))  # fmt: skip
    rate = [Series("tokens per second", curve.steps, curve.tokens_per_s, tone=2)]
    parts: list[Part] = [
        facts,
        _both(
            lambda px: line_chart(rate, x_label="step", y_label="tokens per second", title="Speed", width_px=px),
            "Every step, pauses for measuring and saving left out.",
        ),
    ]
    if record.stages:
        shares = [Share(stage.name, stage.seconds) for stage in record.stages]
        whole = duration(sum(stage.seconds for stage in record.stages))
        parts.append(
            _both(lambda px: stacked_bar(shares, title=f"Where {whole} went", number=duration, width_px=px), "")
        )
    return tuple(parts)


def _plan(record: RunRecord) -> tuple[Part, ...]:
    if not record.plan:
        return (Paragraph("No plan was made before this run."),)
    heads = (Column("What"), Column("Planned", "right"), Column("Came", "right"), Column("Difference", "right"))
    caption = "What was foretold before the first step, and what came. The difference is relative to the plan."
    return (Table(caption, heads, tuple(_plan_cells(row) for row in record.plan)),)


def _plan_cells(row: PlanRow) -> tuple[Cell, ...]:
    form: Callable[[float], str] = {"bytes": data_size, "s": duration}.get(row.unit, significant)
    unit = "" if row.unit in ("bytes", "s", "") else f" {row.unit}"
    texts = [cell_text(v, form) + (unit if v is not None else "") for v in (row.planned, row.actual)]
    if row.planned is None or row.actual is None or not row.planned or not math.isfinite(row.actual / row.planned):
        return (row.what, *texts, None)
    difference = 100 * (row.actual / row.planned - 1)
    sign = "+" if difference > 0 else "\u2212" if difference < 0 else "\u00b1"
    return (row.what, *texts, f"{sign}{abs(difference):,.1f} %")


def _again(record: RunRecord) -> tuple[Part, ...]:
    machine, model, source = record.machine, record.model, record.reproduction
    identity = Facts((
        Fact("Seed", str(source.seed)),
        Fact("Version", source.version or NOTHING),
        Fact("Configuration", source.config_hash, "hash of every setting"),
        Fact("Token store", source.store_id, "hash of the text as tokens"),
        Fact("Chain of batches", source.chain_hash, "equal only if every batch was, in order"),
    ), small=True)  # fmt: skip
    shape = (
        f"{count(model.parameters)} parameters; {model.layers} layers of width {count(model.width)}; {model.heads} heads, "
        f"{model.kv_heads} for keys and values; vocabulary {count(model.vocabulary)}; context {count(model.context_tokens)} tokens"
    )
    rows: tuple[tuple[Cell, ...], ...] = (
        ("Model", shape),
        ("Processor", f"{machine.processor}, {machine.cores} cores, {data_size(machine.memory_bytes)} of memory"),
        ("Device", f"{machine.device}, {machine.dtype}"),
        ("Software", ", ".join(filter(None, (f"PyTorch {machine.torch_version}", machine.python_version, machine.operating_system)))),
    )  # fmt: skip
    return (Code(record.command), identity, Table("Model and machine.", (Column("What"), Column("Found")), rows))


def _limits(record: RunRecord) -> tuple[Part, ...]:
    return (Bullets(record.limits or limits_of(record.model.parameters, record.tokens_trained)),)
