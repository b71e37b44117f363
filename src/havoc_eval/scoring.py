"""How many nats a model needs for documents.

A document is BOS text EOS, or a rendered dialog. What counts is the text alone: nats of BOS, EOS and the tokens of a
dialog's roles are left out, as their bytes are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from havoc_core import chat_format
from havoc_core.errors import CheckpointError
from havoc_core.tokenizer import Tokenizer
from havoc_eval.held_out_text import HeldOutDocument
from havoc_eval.language_model import LanguageModel

_TOKENS_AT_ONCE = 200_000
"""Tokens handed to the model in one call: bounds the memory of the numbers that come back."""


@dataclass(frozen=True)
class ScoredDocument:
    """How surprising a document was."""

    id: str
    nats: float
    """Sum of -log p over the tokens of its text."""
    num_bytes: int
    """UTF-8 bytes of its text."""


def score_documents(
    model: LanguageModel, documents: Iterable[HeldOutDocument], *, window_tokens: int
) -> Iterator[ScoredDocument]:
    """Score documents one after another; memory is bounded, however many there are.

    A document longer than a window is cut as the rows of training are: window k holds tokens k*W to (k+1)*W, both
    ends included, and each of its tokens but the first is predicted from those before it in the window. So every
    token is predicted exactly once, and the first ones of a later window have little context. That overstates
    bits per byte a little, the same for every model with the same window.

    Args:
        model: the model.
        documents: what is scored.
        window_tokens: W, at least 1; the model's max_seq_len at most.

    Raises:
        CheckpointError: the model gives a probability that is no number.
        DataError: a dialog cannot be rendered with the model's tokenizer.
    """
    waiting: list[HeldOutDocument] = []
    rows: list[list[list[int]]] = []
    num_tokens = 0
    for document in documents:
        waiting.append(document)
        rows.append(windows(document_ids(model.tokenizer, document), window_tokens=window_tokens))
        num_tokens += sum(len(row) for row in rows[-1])
        if num_tokens >= _TOKENS_AT_ONCE:
            yield from _scored(model, waiting, rows)
            waiting, rows, num_tokens = [], [], 0
    yield from _scored(model, waiting, rows)


def document_ids(tokenizer: Tokenizer, document: HeldOutDocument) -> list[int]:
    """A document as it is learnt: BOS text EOS, or the rendered dialog.

    Raises:
        DataError: a role is unknown, or the tokenizer has no tokens for dialogs.
    """
    if document.messages:
        return chat_format.render(tokenizer, document.messages).ids
    return [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id]


def windows(ids: Sequence[int], *, window_tokens: int) -> list[list[int]]:
    """Rows of at most window_tokens + 1 ids that overlap by one, so that every id but the first is predicted once.

    Raises:
        ValueError: window_tokens is below 1.
    """
    if window_tokens < 1:
        raise ValueError(f"a window has at least one token, found {window_tokens}")
    return [list(ids[start : start + window_tokens + 1]) for start in range(0, len(ids) - 1, window_tokens)]


def _scored(
    model: LanguageModel, documents: Sequence[HeldOutDocument], rows: Sequence[Sequence[Sequence[int]]]
) -> Iterator[ScoredDocument]:
    log_probs = iter(model.token_log_probs([row for of_document in rows for row in of_document]))
    # By their names, not by having no bytes: another's tokenizer may have an id for unknown characters, which has
    # no bytes either and whose nats must not be forgotten.
    special = model.tokenizer.special
    structure = {model.tokenizer.bos_id, model.tokenizer.eos_id}
    structure |= {special[name] for name in ("<|end|>", *(f"<|{r}|>" for r in chat_format.ROLES)) if name in special}
    for document, of_document in zip(documents, rows, strict=True):
        nats = 0.0
        for row in of_document:
            pairs = zip(row[1:], next(log_probs), strict=True)
            nats -= math.fsum(log_prob for token, log_prob in pairs if token not in structure)
        if not math.isfinite(nats):
            raise CheckpointError(
                "model",
                f"it gives document '{document.id}' a log-probability of {-nats}.",
                "Its weights are damaged, or training diverged: use an earlier checkpoint (havoc checkpoint list).",
            )
        yield ScoredDocument(document.id, nats, document.num_bytes)
