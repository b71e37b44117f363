"""A folder that transformers 4.57 and 5, vLLM, SGLang and MLX read: Qwen3 or Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from havoc_core.config import ModelConfig
from havoc_inference.export import safetensors_file
from havoc_inference.export.exportable import architecture
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.export.tokenizer_files import write_tokenizer
from havoc_inference.load import CheckpointContents
from havoc_inference.vocabulary import allowed_ids, stop_ids

CLASSES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
"""Our architecture -> its class in transformers."""


def model_config(config: ModelConfig, *, dtype: torch.dtype, bos_id: int, eos_id: int, pad_id: int) -> dict[str, Any]:
    """The content of config.json.

    What changed its spelling in transformers 5 is there in both: a file with the new one alone is read by 4.57 with
    the rotary base of 10,000, and nothing is said.
    """
    kind = architecture(config)
    attention = config.attention
    dtype_name = str(dtype).removeprefix("torch.")
    values: dict[str, Any] = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.mlp.hidden_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": attention.num_heads,
        "num_key_value_heads": attention.num_kv_heads,
        "head_dim": config.head_dim,  # Qwen3's default is 128, whatever the widths are
        "hidden_act": "silu",
        "max_position_embeddings": config.max_seq_len,
        "rms_norm_eps": config.layer_norm_eps,
        "initializer_range": config.initializer_range,
        "rope_theta": attention.rope_theta,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": attention.rope_theta},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "use_cache": True,
        "torch_dtype": dtype_name,
        "dtype": dtype_name,
    }
    if kind == "qwen3":
        values |= {"sliding_window": None, "use_sliding_window": False, "max_window_layers": config.num_layers}
    else:
        values |= {"mlp_bias": False, "pretraining_tp": 1}
    return values


def write(
    contents: CheckpointContents,
    weights: ExportedWeights,
    folder: Path,
    *,
    max_shard_bytes: int = safetensors_file.MAX_SHARD_BYTES,
) -> list[str]:
    """Write everything but the card.

    Returns:
        Names of the files that hold weights.

    Raises:
        OSError: they cannot be written.
    """
    tokenizer, config = contents.tokenizer, contents.config
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    _save(folder / "config.json", model_config(config, dtype=weights.dtype, **ids))
    never = (~allowed_ids(tokenizer, config.vocab_size)).nonzero().flatten().tolist()
    _save(
        folder / "generation_config.json",
        {
            "bos_token_id": tokenizer.bos_id,
            # The end of the assistant's message ends an answer as the end of a text does.
            "eos_token_id": sorted(stop_ids(tokenizer)),
            "pad_token_id": tokenizer.pad_id,
            "suppress_tokens": never,  # ids that stand for no text, which our own sampling never gives either
            "do_sample": True,
            "temperature": 0.8,
            "top_k": 50,
            "top_p": 0.95,
        },
    )
    write_tokenizer(tokenizer, folder, max_seq_len=config.max_seq_len)
    return safetensors_file.write_folder(folder, weights.sources(), max_shard_bytes=max_shard_bytes)


def _save(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
