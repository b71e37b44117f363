"""A tokenizer as transformers, and all that stands on it, reads it.

A byte-level BPE goes out as it is. A SentencePiece model goes out as it is too, and beside it in terms of the
`tokenizers` library, which transformers of today reads alone. Both put the beginning-of-text token before a text,
as every text had it in training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from havoc_core.chat_format import has_chat_tokens
from havoc_core.tokenizer import CHAT_TEMPLATE, Tokenizer

SPACE = "\u2581"
"""What SentencePiece writes for a space."""


def byte_level_spec(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The content of its tokenizer.json; None if it is a SentencePiece model."""
    with TemporaryDirectory() as name:
        tokenizer.save(Path(name))
        path = Path(name) / "tokenizer.json"
        if not path.is_file():
            return None
        spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return spec


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, max_seq_len: int) -> None:
    """Write tokenizer.json, tokenizer_config.json, special_tokens_map.json, and the chat template where there is one.

    Args:
        tokenizer: the model's.
        folder: to write into.
        max_seq_len: context of the model, in tokens.

    Raises:
        OSError: they cannot be written.
    """
    tokenizer.save(folder)
    for name in ("special_tokens.json", "chat_template.jinja", "token_bytes.npy"):  # our own, beside the model's
        (folder / name).unlink()
    spec = byte_level_spec(tokenizer) or sentencepiece_spec(folder / "tokenizer.model")
    names = {i: name for name, i in tokenizer.special.items()}
    bos, eos, pad = (names[i] for i in (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id))
    spec |= {"truncation": None, "padding": None, "post_processor": _begins_with(bos, tokenizer.bos_id)}
    _save(folder / "tokenizer.json", spec)
    config = {
        # transformers 4 and 5 both read a tokenizer.json as it is under this name, and under no other.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": eos,
        "pad_token": pad,
        "model_max_length": max_seq_len,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if has_chat_tokens(tokenizer):
        config["chat_template"] = CHAT_TEMPLATE
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    _save(folder / "tokenizer_config.json", config)
    _save(folder / "special_tokens_map.json", {"bos_token": bos, "eos_token": eos, "pad_token": pad})


def sentencepiece_spec(path: Path) -> dict[str, Any]:
    """A SentencePiece BPE model as the content of a tokenizer.json.

    Its merges are not in its file. A piece is made of two others that are pieces, and one with a higher score is made
    first: so all its ways to be made become merges, in the order of scores.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    size = processor.vocab_size()
    pieces = {processor.id_to_piece(i): i for i in range(size)}
    scores = {piece: processor.get_score(i) for piece, i in pieces.items()}
    control = [i for i in range(size) if processor.is_control(i) or processor.is_unknown(i)]
    mergeable = {piece for piece, i in pieces.items() if i not in set(control) and not processor.is_byte(i)}
    replaced: dict[str, Any] = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    first: dict[str, Any] = {"type": "Prepend", "prepend": SPACE}
    prefixed = processor.id_to_piece(processor.encode("a")[0]).startswith(SPACE)
    return {
        "version": "1.0",
        "added_tokens": [_special(processor.id_to_piece(i), i) for i in control],
        "normalizer": {"type": "Sequence", "normalizers": [first, replaced]} if prefixed else replaced,
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": processor.id_to_piece(processor.unk_id()),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": pieces,
            "merges": sorted(_merges(mergeable), key=lambda pair: (-scores["".join(pair)], pieces["".join(pair)])),
        },
    }


def _merges(pieces: set[str]) -> Iterator[tuple[str, str]]:
    for piece in pieces:
        for cut in range(1, len(piece)):
            if piece[:cut] in pieces and piece[cut:] in pieces:
                yield piece[:cut], piece[cut:]


def _special(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def _begins_with(name: str, number: int) -> dict[str, Any]:
    token = {"SpecialToken": {"id": name, "type_id": 0}}
    text, second = ({"Sequence": {"id": letter, "type_id": 0}} for letter in "AB")
    return {
        "type": "TemplateProcessing",
        "single": [token, text],
        "pair": [token, text, second],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }


def _save(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
