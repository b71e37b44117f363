"""What the files of a run say about it, gathered into the record that the report shows.

Nothing is measured here: every number was written by the stage that measured it.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from havoc_cli.speed_facts import plan_note, plan_rows, read_plan, speed_of, stage_times, training_times
from havoc_core.config import TrainingConfig
from havoc_core.config_files import config_hash
from havoc_core.costs import num_parameters
from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles
from havoc_report import run_record as record

if TYPE_CHECKING:
    from havoc_data.loading.loader import Loader
    from havoc_data.store import TokenStore
    from havoc_eval.runner import Evaluation


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a line that a kill cut short is left out.

    Raises:
        DataError: there is no such file.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(
            str(path), f"cannot be read ({error.strerror}).", "Train first: havoc run, or havoc train."
        ) from None
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def gather(config: TrainingConfig, *, command: str, checkpoint: Path, stages: Mapping[str, float]) -> record.RunRecord:
    """The record of a run.

    Args:
        config: the run.
        command: as it was typed.
        checkpoint: whose state is reported.
        stages: stage -> seconds.
    """
    from havoc_data.prepare.build import open_prepared
    from havoc_training.data_stages import make_loader

    files = RunFiles.of(config)
    lines = read_metrics(files.metrics)
    steps = [line for line in lines if line.get("kind") == "train"]
    validations = [line for line in lines if line.get("kind") == "validation"]
    state = json.loads((checkpoint / "training_state.json").read_text(encoding="utf-8"))
    data = open_prepared(config)
    loader = make_loader(config, data)
    evaluation, samples = _evaluation(files), _samples(files)
    total, plan = state["resolved"]["total_steps"], read_plan(files.plan)
    return record.RunRecord(
        title=config.tracking.run_name or files.run_dir.resolve().name or "run",
        started=_when(steps[0]["time"] - steps[0]["seconds"]) if steps else "",
        finished=_when(steps[-1]["time"]) if steps else "",
        command=command,
        machine=_machine(state["resolved"]),
        model=_model(config),
        sources=_sources(data.store, loader, state["next_slot"]),
        tokens_trained=state["scored_tokens"],
        training=_training_curve(steps),
        validation=_validation_curve(validations),
        speed=speed_of(lines, stages),
        reproduction=record.Reproduction(
            config_hash(config), data.store.id, state["chain"], config.seed, version("havoc")
        ),
        comparison=_comparison(evaluation) if evaluation else None,
        exam=_exam(evaluation) if evaluation else None,
        samples=samples,
        stages=stage_times(stages),
        training_time=training_times(lines, stages),
        plan=plan_rows(plan, config=config, state=state, lines=lines, stages=stages),
        plan_note=plan_note(plan, state=state),
        dummy_data=bool(data.store.manifest["dummy"]),
        missing_groups=tuple(data.store.manifest["missing_groups"]),
        ending="" if state["step"] >= total else f"stopped after {state['step']:,} of {total:,} steps",
    )


def _machine(resolved: Mapping[str, Any]) -> record.Machine:
    import torch

    from havoc_core.device import memory_bytes
    from havoc_core.processor import cpu_name

    device = torch.device(resolved["device"])
    name = torch.cuda.get_device_name() if device.type == "cuda" and torch.cuda.is_available() else "CPU"
    return record.Machine(
        processor=cpu_name(),
        cores=os.cpu_count() or 1,
        memory_bytes=memory_bytes(torch.device("cpu")) or 0,
        torch_version=torch.__version__,
        device=name,
        dtype=resolved["precision"],
        python_version=platform.python_version(),
        operating_system=platform.system(),
    )


def _model(config: TrainingConfig) -> record.ModelFacts:
    model = config.model
    return record.ModelFacts(
        parameters=num_parameters(model),
        layers=model.num_layers,
        width=model.d_model,
        heads=model.attention.num_heads,
        kv_heads=model.attention.num_kv_heads,
        vocabulary=model.vocab_size,
        context_tokens=model.max_seq_len,
    )


def _sources(store: TokenStore, loader: Loader, num_slots: int) -> tuple[record.SourceFacts, ...]:
    seen = loader.labels_by_source(range(num_slots))
    whole = max(1, sum(seen.values()))
    held_out = _held_out_bytes(store)
    epochs = loader.epochs_after(num_slots)
    planned = loader.planned_shares()
    rows = []
    for name, source in loader.sources.items():
        stored = store.training[name].record
        rows.append(
            record.SourceFacts(
                name=name,
                group=source.group,
                documents=stored.documents,
                bytes=stored.bytes,
                tokens=stored.tokens,
                licence=", ".join(sorted(stored.licences, key=lambda key: -stored.licences[key])[:3]),
                planned_weight=planned[name],
                realised_share=seen[name] / whole,
                epochs=epochs.get(name, 0.0),
                validation_bytes=held_out.get(name, 0),
            )
        )
    return tuple(rows)


def _held_out_bytes(store: TokenStore) -> dict[str, int]:
    """Source -> bytes of its held-out documents."""
    from havoc_eval.held_out_text import read_held_out

    out: dict[str, int] = {}
    for group in store.validation:
        for document in read_held_out(store.folder / "validation" / f"{group}.jsonl.zst"):
            size = sum(len(content.encode()) for content in document.contents)
            out[document.source] = out.get(document.source, 0) + size
    return out


def _training_curve(steps: Sequence[Mapping[str, Any]]) -> record.TrainingCurve:
    def column(name: str) -> tuple[float, ...]:
        return tuple(_number(line[name]) for line in steps)

    return record.TrainingCurve(
        steps=tuple(int(line["step"]) for line in steps),
        loss=column("loss"),
        learning_rate=column("learning_rate"),
        tokens_per_s=column("tokens_per_s"),
        grad_norm=column("grad_norm"),
    )


def _number(value: float | None) -> float:
    """What was no finite number when it was written is null in the file."""
    return math.nan if value is None else float(value)


def _validation_curve(lines: Sequence[Mapping[str, Any]]) -> record.ValidationCurve:
    groups = list(lines[0]["groups"]) if lines else []
    return record.ValidationCurve(
        steps=tuple(int(line["step"]) for line in lines),
        groups=tuple(
            record.GroupCurve(
                group,
                tuple(_number(line["groups"][group]["bits_per_byte"]) for line in lines),
                tuple(_number(line["groups"][group]["perplexity"]) for line in lines),
            )
            for group in groups
        ),
    )


def _evaluation(files: RunFiles) -> Evaluation | None:
    from havoc_eval.runner import from_json

    if not files.evaluation.is_file():
        return None
    return from_json(files.evaluation.read_text(encoding="utf-8"), where=str(files.evaluation))


def _comparison(evaluation: Evaluation) -> record.Comparison | None:
    result = evaluation.result("held_out")
    if result is None:
        return None
    names = list(dict.fromkeys(score.compressor for score in evaluation.compression))
    sizes = {(s.compressor, s.group, s.primed): s for s in evaluation.compression}

    def row(score: Any, groups: Sequence[str]) -> record.CompressionRow:
        def rate(name: str, primed: bool) -> float | None:
            found = [sizes[(name, group, primed)] for group in groups if (name, group, primed) in sizes]
            if len(found) < len(groups):
                return None
            return 8.0 * sum(s.compressed_bytes for s in found) / sum(s.raw_bytes for s in found)

        size = (
            sum(sizes[(names[0], g, False)].raw_bytes for g in groups) if names else int(score.counts.get("bytes", 0))
        )
        compressors = tuple(record.Compressor(name, rate(name, False), rate(name, True)) for name in names)
        return record.CompressionRow(score.group, size, score.value, score.low, score.high, compressors)

    groups = [score for score in result.scores if score is not result.total]
    return record.Comparison(tuple(row(score, [score.group]) for score in groups))


def _exam(evaluation: Evaluation) -> record.Exam | None:
    result = evaluation.result("exam")
    if result is None:
        return None

    def values(score: Any) -> tuple[int, int, float, float, float]:
        count = score.counts["problems"]
        return round(score.value * count), count, score.low or 0.0, score.high or 1.0, score.baseline or 0.0

    families = []
    for score in result.scores[:-1]:
        correct, count, low, high, guess = values(score)
        families.append(record.ExamFamily(score.group, correct, count, low, high, guess))
    correct, count, low, high, guess = values(result.total)
    touched = None if result.touched is None else len(result.touched)
    untouched = None if result.untouched is None else record.ExamPart(*values(result.untouched)[:4])
    return record.Exam(
        correct, count, result.total.value, low, high, guess, tuple(families), touched=touched, untouched=untouched
    )


def _samples(files: RunFiles) -> tuple[record.SampleText, ...]:
    path = files.logs / "samples.json"
    if not path.is_file():
        return ()
    rows = json.loads(path.read_text(encoding="utf-8"))
    return tuple(record.SampleText(row["prompt"], row["text"], row["settings"]) for row in rows)


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
