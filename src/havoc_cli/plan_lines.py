"""A plan as text: what `havoc plan` prints. At most 110 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.costs import MODEL_CONVENTION, num_parameters
from havoc_core.errors import PlanError
from havoc_training.planner.choice import gib
from havoc_training.planner.plan import Plan

WIDTH = 110
_LABEL = 14
_LEGEND = (
    "A step is {tokens:,} tokens in every row; batch: rows of a micro-batch x accumulation. GiB are computed; RAM is taken to "
    "be there unless --host-memory says how much there is. tokens/s are predicted from the datasheet; days/B are for a billion "
    "tokens at that speed."
)
_INDENT = " " * 4
"""Of parts below their sum."""


def plan_lines(plan: Plan, config: TrainingConfig, *, notes: Sequence[str] = ()) -> Iterator[str]:
    """One plan, whole.

    Args:
        plan: to show.
        config: whose model is named.
        notes: what is not known, and why.
    """
    yield f"{plan.machine}: {plan.description}"
    yield ""
    named = num_parameters(ModelConfig.model_validate(config.model.size)) == plan.parameters
    yield _row("model", f"{_count(plan.parameters)} parameters{f' ({config.model.size})' if named else ''}")
    yield _row("work", f"{_three_digits(plan.flops_per_token / 1e9)} GFLOP a token ({MODEL_CONVENTION})")
    devices = f" x {plan.world_size} devices" if plan.world_size > 1 else ""
    yield _row(
        "step",
        f"{plan.micro_batch_size} x {plan.micro_batches}{devices}: micro-batch {plan.micro_batch_size} rows of "
        f"{plan.sequence_length:,}, accumulation {plan.micro_batches}, {plan.tokens_per_step:,} tokens",
    )
    yield _row("recompute", str(plan.pieces["recompute"]))
    yield ""
    yield from _memory(plan)
    yield ""
    yield from _time(plan)
    if plan.epochs is not None:
        yield ""
        yield from _epochs(plan.epochs)
    for title, texts in (("why", plan.reasons), ("not known", notes)):
        if texts:
            yield ""
        for number, text in enumerate(texts):
            yield from _wrapped(title if number == 0 else "", text)


def table_lines(rows: Sequence[tuple[str, Plan | PlanError]]) -> Iterator[str]:
    """A row for each card, and below it why a card cannot."""
    plans = [plan for _, plan in rows if isinstance(plan, Plan)]
    head = ["GPU", "preset", "gradients", "batch", "recompute", "GPU GiB", "of", "RAM GiB", "tokens/s", "days/B"]
    yield from _table([head, *(_cells(name, plan) for name, plan in rows)], words=5)
    if any(plan.seconds is not None for plan in plans):
        yield ""
        yield from _table([["GPU", "steps", "tokens", "time", "kWh", "money", "end"], *map(_costs, plans)], words=1)
    if plans:
        yield ""
        yield from textwrap.wrap(_LEGEND.format(tokens=plans[0].tokens_per_step), WIDTH)
    for name, error in rows:
        if isinstance(error, PlanError):
            yield ""
            text = f"{name}: {error.found} {error.remedy}"
            yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def trace_lines(ledger: Mapping[str, int], traced: Mapping[str, int]) -> Iterator[str]:
    """The ledger beside the trace, moment by moment.

    Args:
        ledger: phase -> bytes.
        traced: phase -> bytes.
    """
    yield ""
    rows = [["moment", "ledger", "traced", "difference"]]
    for name in [*ledger, *(name for name in traced if name not in ledger)]:
        planned, seen = ledger.get(name), traced.get(name)
        off = f"{planned / seen - 1:+.2%}" if planned and seen else ""
        rows.append([name, *("" if size is None else _sized(size).strip() for size in (planned, seen)), off])
    for number, line in enumerate(_table(rows, words=1)):
        yield _row("trace" if number == 0 else "", line)


def duration(seconds: float) -> str:
    """In the unit that a person would use."""
    for unit, size in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"


def _memory(plan: Plan) -> Iterator[str]:
    of = "GPU memory" if plan.device == "cuda" else "memory"
    yield _row(
        of, f"{_sized(plan.peak_bytes)} of {_sized(plan.device_bytes).strip()} usable; the {plan.peak_phase} decides"
    )
    yield from _parts(plan.phases[plan.peak_phase])
    others = [f"{name} {_sized(sum(p.values())).strip()}" for name, p in plan.phases.items() if name != plan.peak_phase]
    for line in textwrap.wrap("other moments: " + ", ".join(others), WIDTH - _LABEL - 2 - len(_INDENT)):
        yield _row("", _INDENT + line)
    if plan.host:
        found = plan.host_found_bytes
        there = f" of {gib(found or 0)} GiB free"
        if found is None:
            there = ", taken to be there: --host-memory says how much there is"
        yield _row("host memory", _sized(plan.host_bytes) + there)
        yield from _parts(plan.host)
    elif plan.device == "cuda":
        yield _row("host memory", "little: everything is on the GPU")
    short = plan.disk_free_bytes is not None and plan.disk_free_bytes < plan.disk_bytes
    lack = f"; {gib(plan.disk_free_bytes or 0)} GiB are free here" if short else ""
    yield _row(
        "disk",
        f"{_sized(plan.disk_bytes)}: {plan.num_checkpoints} checkpoints of {_sized(plan.checkpoint_bytes).strip()} "
        f"({plan.num_checkpoints - 2} kept, the best, one being written){lack}",
    )


def _parts(parts: Mapping[str, int]) -> Iterator[str]:
    """Largest first; what is under a hundredth of the whole is added up."""
    least = sum(parts.values()) // 100
    for name, size in sorted(parts.items(), key=lambda item: -item[1]):
        if size > least:
            yield _row("", f"{_INDENT}{_sized(size)}  {name}")
    small = [size for size in parts.values() if 0 < size <= least]
    if small:
        yield _row("", f"{_INDENT}{_sized(sum(small))}  the rest")


def _time(plan: Plan) -> Iterator[str]:
    if plan.tokens_per_s is None:
        yield _row("speed", "not known for this device")
    else:
        waits = f", limited by {plan.limited_by}" if plan.limited_by else ""
        yield _row("speed", f"{plan.tokens_per_s:,.0f} tokens/s ({_origin(plan)}{waits})")
        share = "" if plan.peak_share is None else f", {plan.peak_share:.0%} of the datasheet's peak"
        yield _row("", f"{_days(plan.days_per_billion_tokens)} days per billion tokens{share}")
    if plan.total_steps is not None and plan.total_tokens is not None:
        yield _row("length", f"{plan.total_steps:,} steps, {_count(plan.total_tokens)} tokens")
    if plan.seconds is not None:
        yield _row("time", f"{duration(plan.seconds)} of pure training ({_origin(plan)})")
        end = f"{plan.ends_at:%A %Y-%m-%d %H:%M}" if plan.ends_at else "beyond any calendar"
        yield _row("end", f"{end}, if it begins now and is never interrupted")
    if plan.energy_kwh is not None:
        yield _row(
            "energy", f"{plan.energy_kwh:,.1f} kWh at {plan.power_w:,.0f} W a card, without the machine around it"
        )
    if plan.money is not None:
        yield _row("money", f"{plan.money:,.2f} {plan.currency}")
    if plan.outlook is not None:
        loss, low, high, note = (plan.outlook[name] for name in ("loss", "low", "high", "note"))
        yield _row("loss", f"{loss:.3f} expected, 90 % of runs between {low:.3f} and {high:.3f}")
        yield from _wrapped("", str(note))


def _epochs(epochs: Mapping[str, float]) -> Iterator[str]:
    width = max(len(name) for name in epochs)
    for number, (name, times) in enumerate(epochs.items()):
        yield _row("epochs" if number == 0 else "", f"{name.ljust(width)}  {times:>8,.2f}")


def _table(rows: Sequence[Sequence[str]], *, words: int) -> Iterator[str]:
    """Rows of equal length, the first the heads; so many columns of words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = enumerate(zip(row, widths, strict=True))
        yield "  ".join(cell.ljust(w) if column < words else cell.rjust(w) for column, (cell, w) in cells).rstrip()


def _cells(name: str, plan: Plan | PlanError) -> list[str]:
    if isinstance(plan, PlanError):
        return [name, "does not fit", *[""] * 8]
    gradients = {"bfloat16": "bf16", "float32": "fp32"}[plan.pieces["gradients"]]
    return [
        name,
        str(plan.pieces["preset"]),
        gradients + (", host" if plan.pieces["gradients_on"] == "host" else ""),
        f"{plan.micro_batch_size} x {plan.micro_batches}",
        str(plan.pieces["recompute"]),
        gib(plan.peak_bytes),
        gib(plan.device_bytes),
        gib(plan.host_bytes),
        "" if plan.tokens_per_s is None else f"{plan.tokens_per_s:,.0f}",
        _days(plan.days_per_billion_tokens),
    ]


def _costs(plan: Plan) -> list[str]:
    return [
        plan.machine,
        "" if plan.total_steps is None else f"{plan.total_steps:,}",
        "" if plan.total_tokens is None else _count(plan.total_tokens),
        "" if plan.seconds is None else duration(plan.seconds),
        "" if plan.energy_kwh is None else f"{plan.energy_kwh:,.1f}",
        "" if plan.money is None else f"{plan.money:,.2f} {plan.currency}",
        "" if plan.ends_at is None else f"{plan.ends_at:%Y-%m-%d %H:%M}",
    ]


def _origin(plan: Plan) -> str:
    return {"probe": "extrapolated from a probe", "predicted": "predicted"}[plan.rate_origin or "predicted"]


def _days(days: float | None) -> str:
    return "" if days is None else f"{days:,.1f}" if days >= 1.0 else f"{days:.2g}"


def _three_digits(number: float) -> str:
    return f"{number:,.1f}" if number >= 10.0 else f"{number:.3g}"


def _sized(size: int) -> str:
    """In GiB with one decimal, or in MiB where that would say nothing."""
    return f"{gib(size):>6} GiB" if size >= 2**29 else f"{size / 2**20:>6,.1f} MiB"


def _row(label: str, text: str) -> str:
    return f"  {label.ljust(_LABEL)}{text}".rstrip()


def _wrapped(label: str, text: str) -> Iterator[str]:
    for number, line in enumerate(textwrap.wrap(text, WIDTH - _LABEL - 2, break_on_hyphens=False)):
        yield _row(label if number == 0 else "", line)


def _count(number: float) -> str:
    """With three digits and K, M, B or T."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            digits = max(0, 2 - len(str(int(number / size))) + 1)
            return f"{number / size:,.{digits}f} {unit}"
    return f"{number:,.0f}"
