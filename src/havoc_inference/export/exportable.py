"""Which settings other software can represent. Imports no torch: `train` asks before it builds anything."""

from __future__ import annotations

from typing import Literal

from havoc_core.config import ModelConfig
from havoc_core.errors import ConfigError

Architecture = Literal["qwen3", "llama"]
"""As Hugging Face's `model_type` and GGUF's `general.architecture` write it."""
Target = Literal["hf", "gguf"]


def architecture(config: ModelConfig) -> Architecture:
    """With a norm on every query and key head it is Qwen3, without it Llama."""
    return "qwen3" if config.attention.qk_norm else "llama"


def unexportable(config: ModelConfig) -> tuple[str, ...]:
    """Settings that neither Qwen3 nor Llama has, each with what would have to be; empty if all can be exported."""
    found = []
    rotary = config.attention.rotary_dim
    if rotary is not None and rotary != config.head_dim:
        found.append(f"model.attention.rotary_dim is {rotary}, and only all {config.head_dim} channels can be exported")
    if config.mlp.activation != "swiglu":
        found.append(f"model.mlp.activation is {config.mlp.activation}, and only swiglu can be exported")
    return tuple(found)


def unexportable_tokenizer(kind: str) -> tuple[str, ...]:
    """As `unexportable`, for a kind of tokenizer (`tokenizer.kind`)."""
    if kind == "sentencepiece":
        return ("tokenizer.kind is sentencepiece, and only byte-level BPE can be exported to GGUF",)
    return ()


def require_exportable(config: ModelConfig) -> None:
    """Refuse a model that cannot be exported.

    Raises:
        ConfigError: names every setting that other software cannot represent.
    """
    found = unexportable(config)
    if found:
        raise ConfigError(
            "havoc export",
            f"this model is neither a Qwen3 nor a Llama: {'; '.join(found)}.",
            "Use it with havoc generate, chat and serve, or train one without these settings.",
        )
