"""The page about one training run: what it came to first, what it cannot do last."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from havoc_report.page import (
    Bullets,
    Code,
    Fact,
    Facts,
    Figure,
    Note,
    Page,
    Pair,
    Paragraph,
    Part,
    Sample,
    Section,
    Svg,
)
from havoc_report.plots import NARROW_PX, Series, line_chart
from havoc_report.run_curves import smoothed
from havoc_report.run_record import RunRecord
from havoc_report.run_results import both_widths, exam_parts, held_out_parts
from havoc_report.run_speed import plan_parts, speed_parts
from havoc_report.tables import (
    NOTHING,
    Cell,
    Column,
    Table,
    cell_text,
    count,
    data_size,
    duration,
    fixed,
    percent,
    significant,
)
from havoc_report.verdict import (
    best_compressor,
    compression_verdict,
    exam_verdict,
    learning_verdict,
    limits_of,
    total_row,
)

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
        Section("Text it had not seen", held_out_parts(record)),
        Section("Exam", exam_parts(record)),
        Section("What it writes", _samples(record)),
        Section("What it read", _data(record)),
        Section("Speed, memory, time", speed_parts(record)),
        Section("Plan and what happened", plan_parts(record)),
        Section("To run it again", _again(record)),
        Section("What it cannot do", _limits(record)),
    )
    return Page(
        title=record.title,
        subtitle=f"{_moment(record.started)} to {_moment(record.finished)}, on {record.machine.processor}",
        sections=sections,
        kicker="HAVOC run report" + (", DUMMY DATA" if record.dummy_data else ""),
        banners=banners,
        footer="Every figure here was measured or derived in this run, but for those that are called predicted; "
        "a dash means that it was not measured.",
    )


def _moment(iso: str) -> str:
    """2026-07-12T09:14:03+00:00 as 2026-07-12 09:14 UTC; what is no ISO 8601 stays as it is."""
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    zone = moment.tzname()
    return moment.strftime("%Y-%m-%d %H:%M") + (f" {zone}" if zone else "")


def _short(record: RunRecord) -> tuple[Part, ...]:
    parts: list[Part] = []
    if record.ending:
        parts.append(Note(record.ending, kind="warning", title="The run ended before its last step"))
    if record.missing_groups:
        names = ", ".join(record.missing_groups)
        text = f"There was no text for {names}: its weight was given to the other groups, not as planned."
        parts.append(Note(text, kind="warning", title="Missing from the mixture"))
    parts.append(Paragraph(compression_verdict(record.comparison), lead=True))
    parts.append(Paragraph(exam_verdict(record.exam), lead=True))
    total = None if record.comparison is None else total_row(record.comparison)
    best = None if total is None else best_compressor(total)
    exam, steps = record.exam, record.training.steps
    score, against = (
        (NOTHING, "not taken")
        if exam is None or exam.count == 0
        else (percent(exam.score), f"guessing: {percent(exam.guess)}")
    )
    beside = "" if best is None else f"{best[0]}{', primed' if best[2] else ''}: {_bits(best[1])}"
    parts.append(
        Facts(
            (
                Fact("Bits per byte, held out", cell_text(None if total is None else total.model, _bits), beside),
                Fact("Exam", score, against),
                Fact("Whole run", cell_text(record.speed.total_s, duration), _rate(record.speed.overall_tokens_per_s)),
                Fact("Parameters", _short_count(record.model.parameters), f"{record.model.layers} layers"),
                Fact(
                    "Tokens learnt from",
                    _short_count(record.tokens_trained),
                    f"{count(max(steps))} steps" if steps else "",
                ),
                Fact("Peak memory", cell_text(record.speed.peak_memory_bytes, data_size), record.machine.device),
            )
        )
    )
    return tuple(parts)


def _short_count(value: int) -> str:
    """A count short enough for a tile: 950, 12,300, 4.56 million, 7.01 billion."""
    for limit, word in ((10**9, " billion"), (10**6, " million")):
        if value >= limit:
            return significant(value / limit) + word
    return count(value)


def _rate(tokens_per_s: float | None) -> str:
    return "" if tokens_per_s is None else f"{cell_text(tokens_per_s, significant)} tokens/s overall"


def _learning(record: RunRecord) -> tuple[Part, ...]:
    curve = record.training
    parts: list[Part] = [Paragraph(learning_verdict(curve.loss, record.model.vocabulary))]
    if curve.loss:
        loss = smoothed(curve.steps, curve.loss, tone=0)
        parts.append(
            both_widths(
                lambda px: line_chart(
                    loss, x_label="step", y_label="nats per token", title="Training loss", width_px=px
                ),
                "Cross-entropy on the training text. Lower is better.",
            )
        )
    rate = _small("Learning rate", curve.steps, curve.learning_rate, tone=2)
    norm = _small("Gradient norm", curve.steps, curve.grad_norm, tone=3)
    if curve.learning_rate or curve.grad_norm:
        parts.append(
            Pair(
                Figure(rate, "Warm-up, then decay."),
                Figure(norm, "Before clipping. A spike is a batch that surprised the model."),
            )
        )
    return tuple(parts)


def _small(title: str, steps: Sequence[int], values: Sequence[float], *, tone: int) -> Svg:
    """One of two charts side by side; no values make a chart that says so."""
    series = Series(title.lower(), steps if values else (), values, tone=tone)
    return line_chart([series], x_label="step", y_label="", title=title, width_px=NARROW_PX)


def _samples(record: RunRecord) -> tuple[Part, ...]:
    if not record.samples:
        return (Paragraph("No samples were drawn."),)
    said = "The prompt is coloured; the rest is the model's, exactly as it came."
    return (Paragraph(said), *(Sample(s.prompt, s.text, s.settings) for s in record.samples))


def _data(record: RunRecord) -> tuple[Part, ...]:
    if not record.sources:
        return (Paragraph("No sources were recorded."),)
    mixture = Table(
        "The mixture: planned weight, share of the training tokens that it became, and how often each text was read.",
        (
            Column("Source"),
            Column("Group"),
            Column("Planned", "right", percent),
            Column("Realised", "right", percent),
            Column("Epochs", "right", fixed(2)),
            Column("Licence"),
        ),
        tuple((s.name, s.group, s.planned_weight, s.realised_share, s.epochs, s.licence) for s in record.sources),
    )
    sizes: list[tuple[Cell, ...]] = [
        (s.name, s.documents, s.bytes, s.tokens, s.validation_bytes) for s in record.sources
    ]
    every = record.sources
    sizes.append(
        (
            "all",
            sum(s.documents for s in every),
            sum(s.bytes for s in every),
            sum(s.tokens for s in every),
            sum(s.validation_bytes for s in every),
        )
    )
    size = Table(
        "The size of each source, and how much of it was held out for measuring.",
        (
            Column("Source"),
            Column("Documents", "right", count),
            Column("Text", "right", data_size),
            Column("Tokens", "right", count),
            Column("Held out", "right", data_size),
        ),
        tuple(sizes),
        strong_rows=(len(sizes) - 1,),
    )
    return (mixture, size)


def _again(record: RunRecord) -> tuple[Part, ...]:
    machine, model, source = record.machine, record.model, record.reproduction
    identity = Facts(
        (
            Fact("Seed", str(source.seed)),
            Fact("Version", source.version or NOTHING),
            Fact("Configuration", source.config_hash, "hash of every setting"),
            Fact("Token store", source.store_id, "hash of the text as tokens"),
            Fact("Chain of batches", source.chain_hash, "equal only if every batch was, in order"),
        ),
        small=True,
    )
    shape = (
        f"{count(model.parameters)} parameters; {model.layers} layers of width {count(model.width)}; "
        f"{model.heads} heads, {model.kv_heads} for keys and values; vocabulary {count(model.vocabulary)}; "
        f"context {count(model.context_tokens)} tokens"
    )
    software = filter(None, (f"PyTorch {machine.torch_version}", machine.python_version, machine.operating_system))
    rows: tuple[tuple[Cell, ...], ...] = (
        ("Model", shape),
        ("Processor", f"{machine.processor}, {machine.cores} cores, {data_size(machine.memory_bytes)} of memory"),
        ("Device", f"{machine.device}, {machine.dtype}"),
        ("Software", ", ".join(software)),
    )
    return (Code(record.command), identity, Table("Model and machine.", (Column("What"), Column("Found")), rows))


def _limits(record: RunRecord) -> tuple[Part, ...]:
    return (Bullets(record.limits or limits_of(record.model.parameters, record.tokens_trained)),)
