"""An exported file, loaded by llama.cpp and compared with the model it came from."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor

from havoc_core.tokenizer import Tokenizer
from havoc_inference.export import probe, reference
from havoc_inference.export.child import Answers, ask, is_installed
from havoc_inference.export.comparison import Comparison, Figure
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.export.gguf import Kind
from havoc_inference.export.text_questions import text_figures, text_request
from havoc_inference.load import CheckpointContents
from havoc_inference.vocabulary import allowed_ids, stop_ids

DIVERGENCE_LIMIT = 1e-2
"""Mean KL divergence in nats of bfloat16 weights: measured 1e-4 on random ones, and above 0.1 where something is wrong."""
LOG_PROB_LIMIT = 1e-3
"""Of float32 weights. Measured 1e-5 to 5e-5 on models with random weights, which exaggerate."""
TOP = 1024
"""Most probable tokens of llama.cpp that are compared at each position."""


def compare(
    contents: CheckpointContents, weights: ExportedWeights, file: Path, *, kind: Kind, subject: str
) -> Comparison:
    """Ask llama.cpp, and the trainer's model, about the same prompts, lines and dialogs.

    Args:
        contents: the checkpoint.
        weights: the values that the file was made from.
        file: the export, or a float32 copy of it.
        kind: of the file. float32: log-probabilities and greedy text must agree. bfloat16: llama.cpp rounds what it
            multiplies with, so the texts must only be nearly as probable. Quantized: differences are only reported.
        subject: what the file is, in words.

    Raises:
        CheckpointError: llama.cpp could not load it.
    """
    if not is_installed("xllamacpp"):
        return Comparison(
            "llama.cpp", "xllamacpp is not installed. To have it made: pip install xllamacpp, then export again."
        )
    tokenizer, config = contents.tokenizer, contents.config
    prompts = probe.prompts(tokenizer, config)
    rows = [list(ids) for ids in prompts.ids]
    allowed = _whole_characters(tokenizer, config.vocab_size)
    request = {
        **text_request(tokenizer),
        "file": str(file),
        "rows": rows,
        "new_tokens": prompts.new_tokens,
        "context": prompts.max_tokens + 8,
        "top": min(TOP, config.vocab_size),
        "never": (~allowed).nonzero().flatten().tolist(),
        "threads": torch.get_num_threads(),
    }
    answers = ask("ask_llama_cpp", request, runtime="llama.cpp")
    ours = _our_log_probs(contents, weights, rows, answers.plain["tokens"])
    return Comparison(
        f"llama.cpp (xllamacpp {answers.plain['version']})",
        f"{subject}; float32 keys and values, flash attention off. The {request['top']:,} most probable tokens at "
        f"{len(ours)} positions: {len(rows)} prompts, the longest of {max(map(len, rows)):,} tokens, each continued by its "
        "most probable tokens among those that are whole characters.",
        (*_figures(ours, answers, allowed=allowed, kind=kind), *text_figures(tokenizer, answers.plain)),
    )


def _whole_characters(tokenizer: Tokenizer, vocab_size: int) -> Tensor:
    """[V] bool: ids that stand for text, without ends and pieces of a character: llama.cpp's server gives those no scores."""
    allowed = allowed_ids(tokenizer, vocab_size)
    allowed[sorted(stop_ids(tokenizer))] = False
    for number, piece in enumerate(tokenizer.token_bytes()):
        try:
            piece.decode("utf-8")
        except UnicodeDecodeError:
            allowed[number] = False
    return allowed


def _our_log_probs(
    contents: CheckpointContents, weights: ExportedWeights, rows: list[list[int]], made: list[list[int]]
) -> Tensor:
    """[positions, V]: at every position at which llama.cpp chose a token, on its own text."""
    whole = [[*row, *tokens[:-1]] for row, tokens in zip(rows, made, strict=True)]
    hidden = reference.hidden_states(weights, contents.config, whole)
    asked = torch.cat([each[len(row) - 1 :] for each, row in zip(hidden, rows, strict=True)])
    return reference.logits(weights, asked).log_softmax(-1)


def _figures(ours: Tensor, answers: Answers, *, allowed: Tensor, kind: Kind) -> list[Figure]:
    """Since each step is asked on llama.cpp's own text, equal choices at all of them mean equal greedy texts."""
    ids, theirs = (torch.from_numpy(answers.arrays[name]) for name in ("top_ids", "top_values"))
    chosen = torch.tensor([token for tokens in answers.plain["tokens"] for token in tokens])
    at_ids = ours.double().gather(-1, ids)
    possible = ours.masked_fill(~allowed, -math.inf)
    behind = possible.max(-1).values - possible.gather(-1, chosen[:, None])[:, 0]
    # Two tokens closer than the tolerance are one as far as float32 can tell.
    others = int((behind > LOG_PROB_LIMIT).sum())
    difference = float((at_ids - theirs).abs().max())
    if kind == "f32":
        return [
            Figure("largest difference of a log-probability", difference, LOG_PROB_LIMIT),
            Figure(f"of {len(chosen)} greedy choices, other ones", others, 0),
        ]
    limit = DIVERGENCE_LIMIT if kind == "bf16" else None
    return [
        Figure("mean KL divergence in nats", _mean_divergence(at_ids, theirs), limit),
        Figure("share of positions with the same most probable token", 1.0 - int((behind > 0).sum()) / len(chosen)),
        Figure("largest difference of a log-probability", difference),
    ]


def _mean_divergence(ours: Tensor, theirs: Tensor) -> float:
    """Of llama.cpp's distribution from ours; what lies beyond the compared tokens counts as one token."""
    p, q = ours.exp(), theirs.exp()
    rest_p, rest_q = ((1.0 - each.sum(-1)).clamp_min(1e-12) for each in (p, q))
    return float(((p * (ours - theirs)).sum(-1) + rest_p * (rest_p.log() - rest_q.log())).mean())
