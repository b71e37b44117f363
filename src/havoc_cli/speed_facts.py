"""What the files of a run say about its speed, its memory and its plan. Nothing is measured here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from havoc_core.config import TrainingConfig
from havoc_core.costs import activation_bytes, state_bytes
from havoc_report import run_record as record
from havoc_training.metrics import run_time

_STAGES = ("data", "tokenizer", "store", "train", "evaluate", "report")
_KINDS = {
    "updates": "updates",
    "data": "waiting for data",
    "compile": "compiling and warming up",
    "validation": "validation",
    "checkpoints": "checkpoints",
    "redone": "lost and made again",
    "other": "other",
}


def speed_of(lines: Sequence[Mapping[str, Any]], stages: Mapping[str, float]) -> record.Speed:
    """Speed and memory.

    Args:
        lines: of metrics.jsonl.
        stages: stage -> seconds.
    """
    found, whole = run_time(lines), _training_seconds(lines, stages)
    last: Mapping[str, Any] = next((line for line in reversed(lines) if line.get("kind") == "summary"), {})
    return record.Speed(
        steady_tokens_per_s=found.steady_tokens_per_s,
        overall_tokens_per_s=found.scored_tokens / whole if whole and found.scored_tokens else None,
        peak_memory_bytes=_most(lines, "memory_bytes"),
        total_s=sum(stages.values()) or whole,
        goodput=found.ledger.updates / whole if whole and last else None,
        mfu=last.get("mfu"),
        hfu=last.get("hfu"),
        mfu_measured=last.get("mfu_measured"),
        hfu_measured=last.get("hfu_measured"),
        memory_allocated=_most(lines, "memory_allocated"),
        memory_reserved=_most(lines, "memory_reserved"),
        memory_used=_most(lines, "memory_used"),
    )


def stage_times(stages: Mapping[str, float]) -> tuple[record.StageTime, ...]:
    """The stages in the order in which `havoc run` goes through them."""
    order = {name: number for number, name in enumerate(_STAGES)}
    names = sorted(stages, key=lambda name: order.get(name, len(order)))
    return tuple(record.StageTime(name, stages[name]) for name in names)


def training_times(lines: Sequence[Mapping[str, Any]], stages: Mapping[str, float]) -> tuple[record.StageTime, ...]:
    """Where the time of the training went; what took none is left out."""
    found = run_time(lines)
    out = [record.StageTime(_KINDS[kind], seconds) for kind, seconds in found.ledger.seconds().items() if seconds > 0]
    rest = _training_seconds(lines, stages) - found.ledger.total
    # Without a summary nobody wrote down what checkpoints took.
    name = "start" if any(line.get("kind") == "summary" for line in lines) else "start and checkpoints"
    return (*out, record.StageTime(name, rest)) if rest > 0 else tuple(out)


def _training_seconds(lines: Sequence[Mapping[str, Any]], stages: Mapping[str, float]) -> float:
    """Of the stage where `havoc run` timed it, and never less than its parts."""
    return max(stages.get("train", 0.0), run_time(lines).ledger.total)


def _most(lines: Sequence[Mapping[str, Any]], name: str) -> int | None:
    return max((int(line[name]) for line in lines if line.get(name) is not None), default=None)


def read_plan(path: Path) -> Mapping[str, Any] | None:
    """The plan that was made before the run; None where there is none, or none that can be read."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return plan if isinstance(plan, dict) else None


def plan_rows(
    plan: Mapping[str, Any] | None,
    *,
    config: TrainingConfig,
    state: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    stages: Mapping[str, float],
) -> tuple[record.PlanRow, ...]:
    """What was foretold beside what came.

    Args:
        plan: `read_plan`; None: what follows from the config alone.
        config: the run.
        state: training_state.json.
        lines: of metrics.jsonl.
        stages: stage -> seconds.
    """
    if plan is None:
        return _rows_without_plan(config, state, lines)
    resolved, speed = state["resolved"], speed_of(lines, stages)
    pieces, memory = _part(plan, "pieces"), _part(resolved, "memory")
    derived = _part(plan, "derived")
    rate = plan.get("tokens_per_s")
    return (
        record.PlanRow("Memory preset", pieces.get("preset"), memory.get("preset"), ""),
        record.PlanRow("Recomputation", pieces.get("recompute"), memory.get("recompute"), ""),
        record.PlanRow("Rows in a micro-batch", plan.get("micro_batch_size"), resolved.get("micro_batch_size"), ""),
        record.PlanRow("Updates", plan.get("total_steps"), state["step"], ""),
        record.PlanRow("Tokens learnt from", derived.get("total_tokens"), state["scored_tokens"], ""),
        *_memory_rows(plan.get("peak_bytes"), speed),
        record.PlanRow("Speed, steady state", rate, speed.steady_tokens_per_s, "tokens/s"),
        record.PlanRow("Speed, everything counted", rate, speed.overall_tokens_per_s, "tokens/s"),
        record.PlanRow("Training time", derived.get("seconds"), _training_seconds(lines, stages) or None, "s"),
    )


def plan_note(plan: Mapping[str, Any] | None, *, state: Mapping[str, Any]) -> str:
    """What is to be known about the plan's figures."""
    if plan is None:
        return "There was no plan: the figures on the left follow from the settings alone."
    origins = {
        "probe": "The speed was predicted from a probe of a few seconds on this device",
        "predicted": "The speed was predicted from what cards like this one reach, and measured nowhere",
    }
    said = origins.get(str(plan.get("rate_origin")), "No speed was predicted")
    said += (
        "; the predicted time is that of the updates alone, without validations, checkpoints and compiling. Padding "
    )
    said += "counts as tokens in what was predicted, and not in what happened."
    total = int(state["resolved"]["total_steps"])
    if state["step"] < total:
        said += f" The run made {state['step']:,} of {total:,} updates: what happened is what had happened by then."
    return said


def _part(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = values.get(name)
    return part if isinstance(part, dict) else {}


def _rows_without_plan(
    config: TrainingConfig, state: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> tuple[record.PlanRow, ...]:
    resolved, length = state["resolved"], config.data.max_sequence_length
    working = 4 if resolved["precision"] == "float32" else 2
    memory = state_bytes(config.model, working_bytes=working) + activation_bytes(
        config.model, rows=config.batch_size, sequence_length=length, working_bytes=working
    )
    total = resolved["total_steps"]
    return (
        record.PlanRow("Updates", total, state["step"], ""),
        record.PlanRow("Tokens learnt from", total * resolved["rows_per_step"] * length, state["scored_tokens"], ""),
        *_memory_rows(memory, speed_of(lines, {})),
    )


def _memory_rows(predicted: float | None, speed: record.Speed) -> tuple[record.PlanRow, ...]:
    """A CPU does not tell what its tensors take, and a plan does not tell what a whole process takes."""
    rows = [record.PlanRow("Peak memory of tensors", predicted, speed.memory_allocated, "bytes")]
    if speed.memory_allocated is None:
        rows.append(record.PlanRow("Peak memory of the process", None, speed.peak_memory_bytes, "bytes"))
    return tuple(rows)
