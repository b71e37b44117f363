"""`havoc data replay`: the exact batch of a step, with the origin of every document, and its hash checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from havoc_cli.flags import ConfigFlags, load_config, parse_with_settings
from havoc_core.config import TrainingConfig
from havoc_core.config_files import from_json, resolve
from havoc_core.errors import ConfigError, DataError
from havoc_core.run_files import RunFiles

if TYPE_CHECKING:
    from havoc_data.loading.replay import ReplayedRow

_SHOWN_CHARACTERS = 72


@dataclass(frozen=True)
class ReplayFlags(ConfigFlags):
    """Flags of `havoc data replay`."""

    step: int = 1
    """Number of the step: N is the one that made the N-th update."""
    json: bool = False
    """One JSON line a row instead of text."""


def replay_step(argv: Sequence[str]) -> int:
    """Show the rows of a step and compare their hash with the one in metrics.jsonl."""
    flags, given = parse_with_settings(
        ReplayFlags,
        argv,
        prog="havoc data replay",
        description="The exact batch of a step: every row, every document in it, its file and bytes; the hash is checked.",
    )
    config = _settings(flags, given)
    line = _step(RunFiles.of(config).metrics, flags.step)
    from havoc_data.loading.ledger import batch_hash
    from havoc_data.loading.replay import replay
    from havoc_data.prepare.build import open_prepared
    from havoc_training.data_stages import make_loader

    data = open_prepared(config)
    loader = make_loader(config, data, first_slot=line.get("first_slot", 0))
    rows = replay(loader, range(*line["slots"]), token_lengths=data.tokenizer.token_lengths())
    found = batch_hash([each.row.hash() for each in rows]).hex()
    if found != line["batch_hash"]:
        raise DataError(
            f"step {flags.step}",
            f"these rows have the hash {found}, the run learnt from {line['batch_hash']}.",
            "Store, mixture, seed or sequence length are not those that the run had then: give its settings with --config; "
            "if the text has grown since, the store of that time with --data.store.",
        )
    for each in rows:
        # The labels: with them a stretch of text that begins inside a document is exactly its bytes.
        words = [
            data.tokenizer.decode(each.row.labels[f.first_pair : f.first_pair + f.num_pairs].tolist())
            for f in each.fragments
        ]
        print(json.dumps(_values(each, words), ensure_ascii=False) if flags.json else "\n".join(_lines(each, words)))
    if not flags.json:
        print(f"step {flags.step}: {len(rows)} rows, hash {found}: the very batch that the run learnt from")
    return 0


def _settings(flags: ReplayFlags, given: Mapping[str, Any]) -> TrainingConfig:
    """The settings of the run: of the file that is named, or else of the newest checkpoint in the run's folder."""
    from havoc_core import checkpoint

    run_dir = Path(given.get("run_dir") or ".")
    folder = run_dir / (given.get("checkpoint_dir") or "checkpoints")
    saved = checkpoint.step_checkpoints(folder) if flags.config is None and folder.is_dir() else []
    if not saved:
        return load_config(flags, given).config
    path = checkpoint.resolve(saved[-1]) / "config.json"
    values = from_json(path.read_text(encoding="utf-8", errors="replace"), where=str(path)).model_dump(mode="json")
    return resolve(values | {"run_dir": str(run_dir)}, given, file_name=str(path)).config


def _step(path: Path, step: int) -> dict[str, Any]:
    """The line of metrics.jsonl about a step; the last one, where a resumed run made it twice."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror}).", "Name the run: --run-dir FOLDER or --config FILE."
        ) from None
    found: dict[str, Any] | None = None
    steps = []
    for number, written in enumerate(text.splitlines(), start=1):
        try:
            line = json.loads(written)
            replayable = line.get("kind") == "train" and "slots" in line
        except (ValueError, AttributeError):
            raise DataError(f"{path}:{number}", "is no JSON object.", "Remove the line, or restore the file.") from None
        if replayable:
            steps.append(line["step"])
            found = line if line["step"] == step else found
    if found is None:
        known = f"it has steps {min(steps)} to {max(steps)}" if steps else "it has none that can be replayed"
        raise ConfigError("--step", f"{path} knows no step {step}; {known}.", "Name one of these.")
    return found


def _lines(each: ReplayedRow, words: Sequence[str]) -> list[str]:
    row = each.row
    lines = [
        f"slot {row.slot}  {row.source}, row {row.position} of epoch {row.epoch}: {len(each.fragments)} documents or fragments"
    ]
    for fragment, text in zip(each.fragments, words, strict=True):
        places = "; ".join(
            span.origin + (f" bytes {span.start:,}-{span.end:,}" if span.end > span.start else "")
            for span in fragment.spans
        )
        whole = "" if fragment.exact else " (the whole document)"
        start = " ".join(text[: 2 * _SHOWN_CHARACTERS].split())[:_SHOWN_CHARACTERS]
        lines.append(
            f"  {fragment.num_pairs:>6} tokens  {places}{whole}  {fragment.licence or 'licence unknown'}  {start!r}"
        )
    return lines


def _values(each: ReplayedRow, words: Sequence[str]) -> dict[str, Any]:
    row = each.row
    return {
        "slot": row.slot,
        "source": row.source,
        "epoch": row.epoch,
        "row": row.position,
        "hash": row.hash().hex(),
        "fragments": [
            {
                "document": fragment.document,
                "origin": fragment.origin,
                "spans": [[span.origin, span.start, span.end] for span in fragment.spans],
                "exact": fragment.exact,
                "tokens": list(fragment.tokens),
                "pairs": fragment.num_pairs,
                "licence": fragment.licence,
                "text": text,
            }
            for fragment, text in zip(each.fragments, words, strict=True)
        ],
    }
