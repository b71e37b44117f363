"""An exported folder, loaded by transformers and compared with the model it came from."""

from __future__ import annotations

from pathlib import Path

import torch

from havoc_core.costs import num_parameters
from havoc_inference.export import probe, reference
from havoc_inference.export.child import ask, is_installed
from havoc_inference.export.comparison import Comparison, Figure
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.export.text_questions import text_figures, text_request
from havoc_inference.load import CheckpointContents

LOGIT_LIMIT = 1e-4
"""Two float32 computations of one model: measured 1e-6 to 3e-5."""
RELATIVE_LIMIT = 1e-5
"""Of the largest logit, where that is more: float32 has seven digits, and the sums are taken in other orders."""
WHOLE_BYTES = 2_000_000_000
"""A model that takes no more than this in float32 is loaded as a whole; a larger one block by block."""
_LAST = 32
"""Positions of each prompt whose logits are compared, from the end."""


def compare(
    contents: CheckpointContents,
    weights: ExportedWeights,
    folder: Path,
    *,
    python_path: Path | None = None,
    whole_bytes: int = WHOLE_BYTES,
) -> Comparison:
    """Ask transformers, and the trainer's model, about the same prompts, lines and dialogs.

    Args:
        contents: the checkpoint.
        weights: as exported.
        folder: the export.
        python_path: folder with another transformers than the installed one.
        whole_bytes: see `WHOLE_BYTES`.

    Raises:
        CheckpointError: transformers could not load it.
    """
    if python_path is None and not is_installed("transformers"):
        return Comparison(
            "transformers", "it is not installed. To have it made: pip install transformers, then export again."
        )
    tokenizer, config = contents.tokenizer, contents.config
    rows = [list(ids) for ids in probe.prompts(tokenizer, config).ids]
    by_block = 4 * num_parameters(config) > whole_bytes
    request = {
        **text_request(tokenizer),
        "folder": str(folder),
        "rows": rows,
        "groups": reference.groups([len(row) for row in rows]),
        "last": _LAST,
        "by_block": by_block,
    }
    answers = ask("ask_transformers", request, runtime="transformers", python_path=python_path)
    hidden = reference.hidden_states(weights, config, rows)
    ours = reference.logits(weights, torch.cat([each[-_LAST:] for each in hidden]))
    difference = float((ours - torch.from_numpy(answers.arrays["logits"])).abs().max())
    way = (
        "its own config and classes, with the weights of one block in memory at a time"
        if by_block
        else "from_pretrained as everybody calls it"
    )
    return Comparison(
        f"transformers {answers.plain['version']}",
        f"{answers.plain['class']}, float32, {way}. Logits of {len(ours)} positions of {len(rows)} prompts, the longest of "
        f"{max(len(row) for row in rows):,} tokens, each over all {config.vocab_size:,} ids. Lines were encoded with "
        "split_special_tokens=True.",
        (
            Figure("largest difference of a logit", difference, _limit(ours)),
            *text_figures(tokenizer, answers.plain),
        ),
    )


def _limit(logits: torch.Tensor) -> float:
    return max(LOGIT_LIMIT, RELATIVE_LIMIT * float(logits.abs().max()))
