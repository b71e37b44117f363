"""The parts of a run's page about speed, memory and time: what was reached, and beside it what had been foretold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from havoc_report.page import Fact, Facts, Figure, Paragraph, Part
from havoc_report.plots import Share, line_chart, stacked_bar
from havoc_report.run_curves import smoothed
from havoc_report.run_record import PlanRow, RunRecord, Speed, StageTime
from havoc_report.run_results import both_widths
from havoc_report.tables import (
    Cell,
    Column,
    Table,
    cell_text,
    count,
    data_size,
    duration,
    percent,
    significant,
)


def speed_parts(record: RunRecord) -> tuple[Part, ...]:
    """Tokens per second, share of the device, memory, and the stages of the whole run."""
    speed, curve = record.speed, record.training
    tiles = [
        Fact("Steady speed", cell_text(speed.steady_tokens_per_s, significant), "tokens per second, the median"),
        Fact(
            "Overall speed", cell_text(speed.overall_tokens_per_s, significant), "tokens per second, everything counted"
        ),
        Fact("Goodput", cell_text(speed.goodput, percent), "of the training time spent on updates"),
        *_share_tiles(speed),
        *_memory_tiles(record),
    ]
    parts: list[Part] = [Facts(tuple(tiles))]
    if speed.mfu is not None or speed.mfu_measured is not None:
        parts.append(Paragraph(_convention(speed)))
    if curve.tokens_per_s:
        rate = smoothed(curve.steps, curve.tokens_per_s, tone=2)
        parts.append(
            both_widths(
                lambda px: line_chart(rate, x_label="step", y_label="tokens per second", title="Speed", width_px=px),
                "Training tokens per second in each step.",
            )
        )
    if len(record.stages) > 1:
        parts.append(_bar(record.stages, "Where {} went: the stages of the run"))
    return tuple(parts)


def _share_tiles(speed: Speed) -> list[Fact]:
    """Only what is known: an unknown device has no share of a datasheet."""
    tiles = []
    if speed.mfu is not None:
        tiles.append(Fact("MFU", percent(speed.mfu), "of the datasheet's peak"))
    if speed.mfu_measured is not None:
        tiles.append(Fact("Of the matmul rate", percent(speed.mfu_measured), "measured on this device at the start"))
    return tiles


def _convention(speed: Speed) -> str:
    said = "Operations are counted as 6 for each weight of a matrix product and token, and causal attention."
    again = [
        f"{percent(hardware)} of {name}"
        for name, model, hardware in (
            ("the datasheet's peak", speed.mfu, speed.hfu),
            ("the matmul rate", speed.mfu_measured, speed.hfu_measured),
        )
        if model is not None and hardware is not None and hardware > model
    ]
    said += f" With those that were made again in the backward pass, it is {' and '.join(again)}." if again else ""
    if speed.mfu is None:
        said += " There is no datasheet figure for this device, so its share is of what was measured."
    return said


def _memory_tiles(record: RunRecord) -> list[Fact]:
    """A GPU tells what tensors took, what torch reserved for them, and what was used in all; a CPU what was resident."""
    speed, whole = record.speed, f"of {data_size(record.machine.memory_bytes)}"
    if speed.memory_allocated is None:
        return [Fact("Peak memory", cell_text(speed.peak_memory_bytes, data_size), whole)]
    reserved = cell_text(speed.memory_reserved, data_size)
    return [
        Fact("Peak memory", data_size(speed.memory_allocated), f"of tensors; {reserved} reserved"),
        Fact("Used on the device", cell_text(speed.memory_used, data_size), "the driver's own included"),
    ]


def plan_parts(record: RunRecord) -> tuple[Part, ...]:
    """What was foretold beside what came, and where the time of the training went."""
    parts: list[Part] = []
    if record.plan:
        heads = (
            Column("What"),
            Column("Predicted", "right"),
            Column("Happened", "right"),
            Column("Difference", "right"),
        )
        caption = "What was predicted was said before the first step. The difference is relative to it."
        parts.append(Table(caption, heads, tuple(_plan_cells(row) for row in record.plan)))
        parts += [Paragraph(record.plan_note)] if record.plan_note else []
    else:
        parts.append(Paragraph("No plan was made before this run."))
    if record.training_time:
        parts.append(_bar(record.training_time, "Where {} of training went"))
    return tuple(parts)


def _bar(times: Sequence[StageTime], title: str) -> Figure:
    """One bar; `title` has a place for the whole."""
    shares = [Share(each.name, each.seconds) for each in times]
    whole = cell_text(sum(each.seconds for each in times), duration)
    return both_widths(lambda px: stacked_bar(shares, title=title.format(whole), number=duration, width_px=px), "")


def _plan_cells(row: PlanRow) -> tuple[Cell, ...]:
    planned, actual = row.planned, row.actual
    if isinstance(planned, str) or isinstance(actual, str):
        texts = [cell_text(value) for value in (planned, actual)]
        known = planned is not None and actual is not None
        return (row.what, *texts, ("same" if planned == actual else "another") if known else None)
    whole = all(value is None or float(value).is_integer() for value in (planned, actual))
    form: Callable[[float], str] = {"bytes": data_size, "s": duration}.get(row.unit, count if whole else significant)
    unit = "" if row.unit in ("bytes", "s", "") else f" {row.unit}"
    texts = [cell_text(v, form) + (unit if v is not None else "") for v in (planned, actual)]
    if planned is None or actual is None or not planned or not math.isfinite(actual / planned):
        return (row.what, *texts, None)
    difference = 100 * (actual / planned - 1)
    sign = "+" if difference > 0 else "\u2212" if difference < 0 else "\u00b1"
    return (row.what, *texts, f"{sign}{abs(difference):,.1f} %")
