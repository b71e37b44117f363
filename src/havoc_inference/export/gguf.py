"""One file for llama.cpp and all that stands on it, and a Modelfile for Ollama.

Tensor names come from the `gguf` package's own map. Files of the llama architecture rotate neighbouring channels, where
Hugging Face's rotate halves: their query and key rows are permuted (ggml-org/llama.cpp#7481).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from havoc_core.chat_format import has_chat_tokens
from havoc_core.config import ModelConfig
from havoc_core.errors import MissingPackageError
from havoc_core.tokenizer import CHAT_TEMPLATE, Tokenizer
from havoc_inference.export.exportable import architecture
from havoc_inference.export.exported_weights import HEAD, ExportedWeights
from havoc_inference.export.gguf_tokens import gguf_tokens

if TYPE_CHECKING:
    from gguf import GGUFWriter

Kind = Literal["f32", "bf16", "q8_0", "q4_0"]
KINDS: tuple[Kind, ...] = ("f32", "bf16", "q8_0", "q4_0")
QUANTIZED = frozenset({"q8_0", "q4_0"})
BLOCK = 32
"""Values that share a scale. A row whose width is no multiple of it stays bfloat16."""
_FILE_TYPES = {"f32": 0, "bf16": 32, "q8_0": 7, "q4_0": 2}
"""`general.file_type`, the LlamaFileType of most tensors."""


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file."""

    ours: str
    theirs: str
    shape: tuple[int, ...]
    kind: str


def require_package() -> None:
    """Whether the `gguf` package is there.

    Raises:
        MissingPackageError: it is not.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "havoc export --to gguf", "the package gguf is not installed.", "pip install 'havoc[export]'"
        ) from None


def write(path: Path, weights: ExportedWeights, config: ModelConfig, tokenizer: Tokenizer, *, kind: Kind) -> None:
    """Write the file, in memory for the largest tensor only.

    Args:
        path: of the file.
        weights: the values, before any quantization.
        config: of the model.
        tokenizer: of the model.
        kind: of the matrices. Norms stay float32; in q4_0 the embedding and the head are q8_0.

    Raises:
        MissingPackageError: the `gguf` package is not installed.
        ConfigError: the tokenizer is none that llama.cpp knows.
        OSError: it cannot be written.
    """
    require_package()
    from gguf import GGUFWriter

    arch = architecture(config)
    writer = GGUFWriter(path, arch)
    try:
        _add_model(writer, config, kind=kind, name=path.stem)
        _add_tokenizer(writer, tokenizer, vocab_size=config.vocab_size)
        entries = list(_entries(weights, config, kind))
        for entry in entries:
            shape, nbytes = _stored_shape(entry)
            writer.add_tensor_info(entry.theirs, shape, np.dtype(np.uint8), nbytes, raw_dtype=_quantization(entry.kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for entry in entries:
            values = weights[entry.ours]
            if arch == "llama" and entry.ours.endswith(("q_proj.weight", "k_proj.weight")):
                values = _neighbours(values, config.head_dim)
            writer.write_tensor_data(_encoded(values, entry.kind))
    finally:
        writer.close()


def modelfile(file: str, config: ModelConfig, tokenizer: Tokenizer) -> str:
    """The content of Ollama's Modelfile for this file beside it."""
    template = "{{ .Prompt }}"
    stops = []
    if has_chat_tokens(tokenizer):
        template = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
        stops = ['PARAMETER stop "<|end|>"']
    lines = [
        f"FROM ./{file}",
        f'TEMPLATE """{template}"""',
        f"PARAMETER num_ctx {config.max_seq_len}",
        "PARAMETER temperature 0.8",
        "PARAMETER top_k 50",
        "PARAMETER top_p 0.95",
        *stops,
    ]
    return "\n".join(lines) + "\n"


def kept_wide(weights: ExportedWeights, config: ModelConfig, kind: Kind) -> list[str]:
    """Matrices that stay bfloat16 in a quantized file, because their rows cannot be cut into blocks."""
    return [entry.ours for entry in _entries(weights, config, kind) if kind in QUANTIZED and entry.kind == "bf16"]


def _add_model(writer: GGUFWriter, config: ModelConfig, *, kind: Kind, name: str) -> None:
    attention = config.attention
    writer.add_name(name)
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_quantization_version(2)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp.hidden_dim)
    writer.add_head_count(attention.num_heads)
    writer.add_head_count_kv(attention.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(attention.rope_theta)
    writer.add_layer_norm_rms_eps(config.layer_norm_eps)


def _add_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, *, vocab_size: int) -> None:
    found = gguf_tokens(tokenizer, vocab_size=vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(found.pre)
    writer.add_token_list(found.tokens)
    writer.add_token_types(found.types)
    writer.add_token_merges(found.merges)
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    if has_chat_tokens(tokenizer):
        writer.add_eot_token_id(tokenizer.special["<|end|>"])
        writer.add_chat_template(CHAT_TEMPLATE)


def _entries(weights: ExportedWeights, config: ModelConfig, kind: Kind) -> Iterator[_Entry]:
    import gguf

    arch = {"qwen3": gguf.MODEL_ARCH.QWEN3, "llama": gguf.MODEL_ARCH.LLAMA}[architecture(config)]
    names = gguf.get_tensor_name_map(arch, config.num_layers)
    for ours in weights:
        shape = tuple(weights.stored[ours].shape)
        theirs = names.get_name(ours, try_suffixes=(".weight",))
        assert theirs is not None, f"the gguf package knows no name for {ours}"
        of_it: str = kind if len(shape) > 1 else "f32"
        if of_it in QUANTIZED and shape[-1] % BLOCK:
            of_it = "bf16"
        elif of_it == "q4_0" and ours in {HEAD, "model.embed_tokens.weight"}:
            of_it = "q8_0"  # the two matrices that touch every token: half a byte more there costs little
        yield _Entry(ours, theirs, shape, of_it)


def _quantization(kind: str) -> Any:
    import gguf

    return gguf.GGMLQuantizationType[kind.upper()]


def _stored_shape(entry: _Entry) -> tuple[tuple[int, ...], int]:
    """Shape in bytes, and how many there are."""
    import gguf

    shape = gguf.quant_shape_to_byte_shape(entry.shape, _quantization(entry.kind))
    return tuple(shape), int(np.prod(shape))


def _encoded(values: Tensor, kind: str) -> np.ndarray:
    if kind == "f32":
        return values.float().contiguous().numpy()
    if kind == "bf16":
        return values.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    from gguf import quants

    encoded: np.ndarray = quants.quantize(values.float().contiguous().numpy(), _quantization(kind))
    return encoded


def _neighbours(values: Tensor, head_dim: int) -> Tensor:
    """Rows of each head in the order in which the two halves' channels become neighbours."""
    width = values.shape[-1]
    return values.view(-1, 2, head_dim // 2, width).transpose(1, 2).reshape(-1, width)
