"""What the trainer's own model says of an export's weights, in float32, with one block's worth of memory.

Weights stay in the checkpoint's file; a block's are widened when its turn comes and forgotten after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from havoc_core.config import ModelConfig
from havoc_core.layers.attention import Sight
from havoc_core.layers.block import BlockRunner
from havoc_core.model import bind_weights
from havoc_core.models import havoc
from havoc_inference.export.exported_weights import HEAD, ExportedWeights

_HEAD_ROWS = 8192
"""Rows of the head that are widened at once."""
_TOGETHER = 128
"""Tokens of the longest row up to which all rows go in one batch."""


def groups(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers of the rows that go in one batch: all, or where one is much longer than the others that one by itself."""
    longest = max(lengths)
    if longest <= _TOGETHER:
        return [list(range(len(lengths)))]
    short = [at for at, length in enumerate(lengths) if length < longest]
    return [group for group in (short, [at for at in range(len(lengths)) if at not in short]) if group]


@torch.inference_mode()
def hidden_states(weights: ExportedWeights, config: ModelConfig, rows: Sequence[Sequence[int]]) -> list[Tensor]:
    """The model's hidden states over whole rows, as training computes them.

    Args:
        weights: as exported.
        config: of the model.
        rows: ids.

    Returns:
        For each row [T, D], float32.
    """
    model = havoc.build(config).requires_grad_(False).eval()
    bind_weights(model, weights.stored)
    model.run_blocks_with(_widened(weights))
    out: dict[int, Tensor] = {}
    for group in groups([len(row) for row in rows]):
        # Padded on the right, where causal attention never looks.
        tokens = torch.zeros(len(group), max(len(rows[at]) for at in group), dtype=torch.int64)
        for number, at in enumerate(group):
            tokens[number, : len(rows[at])] = torch.tensor(rows[at])
        hidden = model(tokens)
        out |= {at: hidden[number, : len(rows[at])] for number, at in enumerate(group)}
    return [out[at] for at in range(len(rows))]


@torch.inference_mode()
def logits(weights: ExportedWeights, hidden: Tensor) -> Tensor:
    """[N, D] float32 -> [N, V] float32, from the head as exported."""
    name = HEAD if HEAD in weights else "model.embed_tokens.weight"
    head = weights.stored[name]
    out = torch.empty(len(hidden), len(head))
    for at in range(0, len(head), _HEAD_ROWS):
        rows = head[at : at + _HEAD_ROWS].to(weights.dtype).float()
        torch.mm(hidden, rows.t(), out=out[:, at : at + len(rows)])
    return out


def _widened(weights: ExportedWeights) -> BlockRunner:
    def run(blocks: Iterable[nn.Module], x: Tensor, rotary: tuple[Tensor, Tensor], sight: Sight) -> Tensor:
        x = x.to(weights.dtype).float()  # rows of the embedding as stored -> as exported
        for number, block in enumerate(blocks):
            values = {name: weights[f"model.layers.{number}.{name}"].float() for name, _ in block.named_parameters()}
            x = functional_call(block, values, (x, rotary, sight))
        return x

    return run
