"""What a model costs: parameters, floating-point operations, bytes. Closed forms, no torch."""

from __future__ import annotations

from typing import Literal

from havoc_core.config import ModelConfig

MODEL_CONVENTION = "6N + causal attention"
"""What `training_flops_per_token` counts: what learning needs, however it is done."""
HARDWARE_CONVENTION = "6N + causal attention + recompute"
"""What `hardware_flops_per_token` counts: what the device is made to do."""

LOSS_CHUNK, LOSS_CHUNK_CPU = 67_108_864, 4_194_304
"""Logits that the loss holds at once. On a CPU 16 MiB in float32: large enough for the matrix product, small enough for
the cache. Elsewhere 256 MiB: 1,024 tokens of a vocabulary of 65,536, or the products would be too thin to fill a GPU."""


def num_parameters(model: ModelConfig) -> int:
    """Values in all weights; a tied head is counted once."""
    embedding = model.vocab_size * model.d_model
    return _block_parameters(model) * model.num_layers + model.d_model + embedding * (1 if model.tie_embeddings else 2)


def _block_parameters(model: ModelConfig) -> int:
    attention = model.attention
    projections = 2 * model.d_model * model.head_dim * (attention.num_heads + attention.num_kv_heads)
    norms = 2 * model.d_model + (2 * model.head_dim if attention.qk_norm else 0)
    return projections + 3 * model.d_model * model.mlp.hidden_dim + norms


def training_flops_per_token(model: ModelConfig, sequence_length: int) -> float:
    """Floating-point operations to learn from one token, forward and backward: "6N + causal attention".

    6 for each parameter of a matrix product (the embedding is a look-up and does not count), and
    6 * layers * heads * head width * sequence for the causal half of the attention scores. Kaplan et al. 2020,
    arXiv:2001.08361, with the attention term of PaLM's appendix B halved for the mask.
    """
    head = 2.0 * model.vocab_size * model.d_model
    # Twice the forward pass for the two gradients of every product.
    return 3.0 * (_forward_flops_of_blocks(model, sequence_length) + head)


def hardware_flops_per_token(
    model: ModelConfig, sequence_length: int, recompute: Literal["none", "selective", "full"]
) -> float:
    """Floating-point operations that the device does for one token: "6N + causal attention + recompute".

    `full` runs the forward pass of the blocks once more, `selective` repeats norms and activations alone, in which there is
    no matrix product. The head is never recomputed: its gradients are worked out chunk by chunk on the way forward.
    """
    again = _forward_flops_of_blocks(model, sequence_length) if recompute == "full" else 0.0
    return training_flops_per_token(model, sequence_length) + again


def _forward_flops_of_blocks(model: ModelConfig, sequence_length: int) -> float:
    """A token sees half of the row on average: 2 products of 2 operations, halved for the causal mask."""
    matrices = _block_parameters(model) - 2 * model.d_model - (2 * model.head_dim if model.attention.qk_norm else 0)
    attention = model.attention.num_heads * model.head_dim * sequence_length
    return 2.0 * model.num_layers * (matrices + attention)


def state_bytes(model: ModelConfig, *, working_bytes: int) -> int:
    """Bytes of weights, float32 gradients, float32 master (where weights are narrower) and two float32 moments."""
    master = 4 if working_bytes < 4 else 0
    # The gradient of one backward lies beside the float32 sum of them.
    return num_parameters(model) * (working_bytes * 2 + master + 4 + 8)


def activation_bytes(model: ModelConfig, *, rows: int, sequence_length: int, working_bytes: int) -> int:
    """Rough bytes kept for the backward of one micro-batch: about 12 D + 4 E(H+K) + 4 hidden values a token and block."""
    attention = model.attention
    per_block = 12 * model.d_model + 4 * model.head_dim * (attention.num_heads + attention.num_kv_heads)
    per_block += 4 * model.mlp.hidden_dim
    return rows * sequence_length * per_block * model.num_layers * working_bytes
