"""What a model costs: parameters, floating-point operations, bytes. Closed forms, no torch."""

from __future__ import annotations

from havoc_core.config import ModelConfig


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
    block = _block_parameters(model) - 2 * model.d_model - (2 * model.head_dim if model.attention.qk_norm else 0)
    matrices = block * model.num_layers + model.vocab_size * model.d_model
    attention = model.num_layers * model.attention.num_heads * model.head_dim * sequence_length
    return 6.0 * matrices + 6.0 * attention


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
