"""A tokenizer as llama.cpp reads it: tokens, their types, merges, and the name of the split before the merges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from havoc_core.errors import ConfigError
from havoc_core.tokenizer import SPLIT_PATTERN, Tokenizer
from havoc_inference.export.tokenizer_files import byte_level_spec

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""llama.cpp's types of tokens. CONTROL is found in a text only where it is asked for, USER_DEFINED always."""

_LLAMA_3_PATTERN = SPLIT_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


@dataclass(frozen=True)
class GgufTokens:
    """What the file says of the tokenizer."""

    pre: str
    """llama.cpp's name of the split pattern."""
    tokens: tuple[str, ...]
    """One for each row of the embedding."""
    types: tuple[int, ...]
    merges: tuple[str, ...]


def gguf_tokens(tokenizer: Tokenizer, *, vocab_size: int) -> GgufTokens:
    """The tokenizer in llama.cpp's terms; rows of the embedding without a token are named <|unused_i|>.

    Raises:
        ConfigError: it is none that llama.cpp knows under a name; says what it is.
    """
    spec = byte_level_spec(tokenizer)
    if spec is None:
        raise ConfigError(
            "havoc export --to gguf",
            "the tokenizer is a SentencePiece model, and only byte-level BPE is written to GGUF.",
            "Export to a Hugging Face folder: --to hf.",
        )
    tokens = {i: (token, NORMAL) for token, i in spec["model"]["vocab"].items()}
    for added in spec["added_tokens"]:
        tokens[added["id"]] = (added["content"], CONTROL if added["special"] else USER_DEFINED)
    rows = [tokens.get(i, (f"<|unused_{i}|>", UNUSED)) for i in range(vocab_size)]
    merges = spec["model"]["merges"]
    return GgufTokens(
        pre=_pre_tokenizer(spec),
        tokens=tuple(token for token, _ in rows),
        types=tuple(kind for _, kind in rows),
        merges=tuple(each if isinstance(each, str) else " ".join(each) for each in merges),
    )


def _pre_tokenizer(spec: Mapping[str, Any]) -> str:
    before = spec["pre_tokenizer"] or {}
    steps = before["pretokenizers"] if before.get("type") == "Sequence" else [before]
    kinds = [step.get("type") for step in steps]
    ignores_merges = bool(spec["model"].get("ignore_merges"))
    if kinds == ["ByteLevel"] and steps[0]["use_regex"] and not steps[0]["add_prefix_space"] and not ignores_merges:
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not (steps[1]["use_regex"] or steps[1]["add_prefix_space"]):
        pattern = steps[0]["pattern"].get("Regex")
        # llama.cpp looks a whole word up before it merges where the name is llama-bpe, and where it is qwen2 it does not.
        known = {(SPLIT_PATTERN, False): "qwen2", (_LLAMA_3_PATTERN, True): "llama-bpe"}
        if (pattern, ignores_merges) in known:
            return known[pattern, ignores_merges]
    raise ConfigError(
        "havoc export --to gguf",
        f"the tokenizer splits text ({', '.join(map(str, kinds))}) in a way that llama.cpp has no name for here.",
        "Those of GPT-2, Llama 3, Qwen and HAVOC can be exported; for others use --to hf.",
    )
