"""Text <-> token ids.

Two kinds behind one face: a `tokenizer.json` of Hugging Face's tokenizers (byte-level BPE, ours or another's) and a
SentencePiece model. Text is never normalised, and special tokens are never found in it: a text that contains
"<|eos|>" is nine characters, not an end.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from havoc_core.errors import DataError
from havoc_core.fast_bpe import FastBpe, byte_alphabet

NUM_SPECIAL = 256
"""Ids reserved at the beginning of the vocabulary, so that later stages never resize the embedding."""

NAMED_SPECIALS = (
    "<|bos|>", "<|eos|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool_call|>",
    "<|tool_result|>", "<|think|>", "<|end_think|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
)  # fmt: skip
SPECIAL_TOKENS = NAMED_SPECIALS + tuple(f"<|reserved_{i}|>" for i in range(len(NAMED_SPECIALS), NUM_SPECIAL))
"""Ids 0 to 255, in order."""

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The split of Qwen2: single digits, and a name ("qwen2") under which llama.cpp knows it."""

CHAT_TEMPLATE = (
    "{{- '<|bos|>' -}}"
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""The format of `chat_format.py` for other software: Jinja, as Hugging Face's tokenizers read it."""

MAX_PIECE = 1_000_000
"""Characters encoded at once; longer texts are cut where the split pattern would cut anyway."""

PROOF_PAYS = 1_000_000
"""Characters after which a faster way is looked for: the proof of its ids costs what it saves on 1 to 3 million."""

# A line end followed by something that is neither white space nor a line end always ends a pre-token: [\r\n]* and
# \s*[\r\n]+ take the line ends, and what follows starts afresh.
_SAFE_CUT = re.compile(r"\n(?=\S)")


class _Engine(Protocol):
    """What a kind of tokenizer must do; ids of specials are the engine's own."""

    bos_id: int
    eos_id: int
    pad_id: int
    special: dict[str, int]
    vocab_size: int

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...
    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]: ...
    def decode(self, ids: Sequence[int]) -> bytes: ...
    def token_bytes(self) -> list[bytes]: ...
    def save(self, folder: Path) -> None: ...


class Tokenizer:
    """The tokenizer of a run: the same for data, training and generation."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.vocab_size: int = engine.vocab_size
        """Ids that the tokenizer can give; at most the model's vocab_size."""
        self.bos_id: int = engine.bos_id
        self.eos_id: int = engine.eos_id
        self.pad_id: int = engine.pad_id

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """From a folder that `save` wrote, a tokenizer.json, or a SentencePiece .model.

        Raises:
            DataError: there is no tokenizer, or it cannot be read.
        """
        if path.is_dir():
            inside = [path / name for name in ("tokenizer.json", "tokenizer.model") if (path / name).is_file()]
            if not inside:
                raise DataError(str(path), "holds no tokenizer.json.", "Train one: havoc tokenizer train.")
            path = inside[0]
        if not path.is_file():
            raise DataError(str(path), "there is no such tokenizer.", "Train one: havoc tokenizer train.")
        return cls(SentencePieceEngine.load(path) if path.suffix == ".model" else BpeEngine.load(path))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json (or tokenizer.model), special_tokens.json, chat_template.jinja and token_bytes.npy."""
        folder.mkdir(parents=True, exist_ok=True)
        self._engine.save(folder)
        (folder / "special_tokens.json").write_text(json.dumps(self.special, indent=1) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
        np.save(folder / "token_bytes.npy", self.token_lengths())

    @property
    def special(self) -> dict[str, int]:
        """Special token -> id."""
        return self._engine.special

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no special tokens are added, and none are recognised in it."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts; long ones are encoded in pieces with the same result."""
        pieces = [(number, piece) for number, text in enumerate(texts) for piece in _pieces(text)]
        out: list[list[int]] = [[] for _ in texts]
        for (number, _), ids in zip(pieces, self._engine.encode([piece for _, piece in pieces]), strict=True):
            out[number] += ids
        return out

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """As `encode_batch`, as arrays of uint32: the way for much text, through tiktoken where it gives the same ids."""
        pieces = [(number, piece) for number, text in enumerate(texts) for piece in _pieces(text)]
        out: list[list[np.ndarray]] = [[] for _ in texts]
        for (number, _), ids in zip(pieces, self._engine.encode_arrays([piece for _, piece in pieces]), strict=True):
            out[number].append(ids)
        return [arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in out]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens stand for nothing, invalid UTF-8 becomes U+FFFD."""
        return self._engine.decode(ids).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """The bytes of ids, for streaming: a character may be spread over several tokens."""
        return self._engine.decode(ids)

    def token_bytes(self) -> list[bytes]:
        """Bytes that each id stands for; empty for special tokens."""
        return self._engine.token_bytes()

    def token_lengths(self) -> np.ndarray:
        """[vocab_size] int32: number of bytes that each id stands for; 0 for special tokens."""
        return np.array([len(piece) for piece in self.token_bytes()], dtype=np.int32)

    def fingerprint(self) -> str:
        """BLAKE2b-128 of what every id stands for and which are special, in hex."""
        digest = hashlib.blake2b(digest_size=16)
        for piece in self.token_bytes():
            digest.update(len(piece).to_bytes(4, "little") + piece)
        digest.update(json.dumps([self.special, self.bos_id, self.eos_id, self.pad_id], sort_keys=True).encode())
        return digest.hexdigest()


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > MAX_PIECE:
        cut = start + MAX_PIECE
        # Without a line end in half a million characters no cut is provably safe: the text still round-trips,
        # one pre-token may be split in two.
        for match in _SAFE_CUT.finditer(text, start + MAX_PIECE // 2, cut):
            cut = match.end()
        yield text[start:cut]
        start = cut
    if start < len(text) or start == 0:
        yield text[start:]


class BpeEngine:
    """A tokenizer.json: byte-level BPE."""

    def __init__(self, fast: FastTokenizer) -> None:
        # Without this, "<|eos|>" in a corpus would become a real end of text.
        fast.encode_special_tokens = True
        fast.no_padding()
        fast.no_truncation()
        self._fast = fast
        self._faster: FastBpe | None = None
        self._faster_sought = False
        self._characters = 0
        self._table: list[bytes] | None = None
        added = fast.get_added_tokens_decoder()
        self.special = {token.content: i for i, token in added.items() if token.special}
        self._added_text = {i: token.content for i, token in added.items() if not token.special}
        self.vocab_size = fast.get_vocab_size(with_added_tokens=True)
        self.bos_id = self._named(("<|bos|>", "<s>", "<|begin_of_text|>", "<|endoftext|>", "<bos>"))
        self.eos_id = self._named(("<|eos|>", "</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>"))
        self.pad_id = self.special.get("<|pad|>", self.eos_id)

    @classmethod
    def load(cls, path: Path) -> BpeEngine:
        """From a tokenizer.json.

        Raises:
            DataError: it cannot be read, is not byte-level, or names no beginning and end of text.
        """
        try:
            fast = FastTokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception
            raise DataError(
                str(path), f"is no tokenizer.json ({error}).", "Train one: havoc tokenizer train."
            ) from None
        if any(fast.token_to_id(char) is None for char in byte_alphabet().values()):
            # Read as if it were, most of its tokens would stand for nothing.
            raise DataError(
                str(path),
                "is no byte-level tokenizer: some bytes have no token.",
                "Use a byte-level one, such as that of GPT-2, Llama 3 or Qwen, or train your own: havoc tokenizer train.",
            )
        return cls(fast)

    def _named(self, candidates: Sequence[str]) -> int:
        for name in candidates:
            if name in self.special:
                return self.special[name]
        raise DataError(
            "tokenizer", f"none of {', '.join(candidates)} is a special token of it.", "Add one to its added_tokens."
        )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        return [encoding.ids for encoding in self._fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def seek_faster(self) -> bool:
        """Look for a faster way to the same ids, once; it takes up to a second. Whether there is one."""
        if not self._faster_sought:
            self._faster, self._faster_sought = FastBpe.of(self._fast), True
        return self._faster is not None

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, uint32; the faster way, if there is one, as soon as much text has come."""
        self._characters += sum(map(len, texts))
        if self._characters >= PROOF_PAYS:
            self.seek_faster()
        faster = self._faster
        quick = [faster is not None and faster.takes(text) for text in texts]
        others = iter(self.encode([text for text, is_quick in zip(texts, quick, strict=True) if not is_quick]))
        return [
            faster.encode(text) if faster is not None and is_quick else np.array(next(others), dtype=np.uint32)
            for text, is_quick in zip(texts, quick, strict=True)
        ]

    def decode(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids."""
        table = self.token_bytes()
        return b"".join(table[i] for i in ids if i < len(table))

    def token_bytes(self) -> list[bytes]:
        """Bytes of each id."""
        if self._table is None:
            back = {char: byte for byte, char in byte_alphabet().items()}
            special = set(self.special.values())
            table = []
            for i in range(self.vocab_size):
                if i in self._added_text:  # written as it is, not in the alphabet of bytes
                    table.append(self._added_text[i].encode())
                    continue
                piece = self._fast.id_to_token(i) or ""
                known = i not in special and not piece.startswith("<|unused_")
                table.append(bytes(back[c] for c in piece) if known and all(c in back for c in piece) else b"")
            self._table = table
        return self._table

    def save(self, folder: Path) -> None:
        """Write tokenizer.json."""
        self._fast.save(str(folder / "tokenizer.json"))


_OWN_SPACE = "\u2581"  # what SentencePiece writes for a space


class SentencePieceEngine:
    """A SentencePiece model, trained by us (lossless settings) or by others."""

    def __init__(self, processor: object, serialized: bytes) -> None:
        import sentencepiece

        assert isinstance(processor, sentencepiece.SentencePieceProcessor), "a SentencePieceProcessor"
        self._processor = processor
        self._serialized = serialized
        self._table: list[bytes] | None = None
        self.vocab_size = processor.vocab_size()
        control = [i for i in range(self.vocab_size) if processor.is_control(i) or processor.is_unknown(i)]
        self.special = {processor.id_to_piece(i): i for i in control}
        self.bos_id = processor.bos_id()
        self.eos_id = processor.eos_id()
        if self.bos_id < 0 or self.eos_id < 0:
            raise DataError("tokenizer", "the SentencePiece model has no bos or eos id.", "Train it with both.")
        self.pad_id = processor.pad_id() if processor.pad_id() >= 0 else self.eos_id
        own = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in _OWN_SPACE.encode()]
        self._own_space = own if all(processor.is_byte(i) for i in own) else None

    @classmethod
    def load(cls, path: Path) -> SentencePieceEngine:
        """From a .model file.

        Raises:
            DataError: it is no SentencePiece model.
        """
        import sentencepiece

        serialized = path.read_bytes()
        try:
            processor = sentencepiece.SentencePieceProcessor(model_proto=serialized)
        except (RuntimeError, OSError) as error:
            raise DataError(str(path), f"is no SentencePiece model ({error}).", "Name a .model file.") from None
        return cls(processor, serialized)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""
        if self._own_space is None or not any(_OWN_SPACE in text for text in texts):
            return [list(ids) for ids in self._processor.encode(list(texts))]
        # Taken for a space, it would come back as one: it is written as its three bytes.
        out: list[list[int]] = []
        for text in texts:
            first, *rest = (list(ids) for ids in self._processor.encode(text.split(_OWN_SPACE)))
            out.append([*first, *(i for ids in rest for i in (*self._own_space, *ids))])
        return out

    def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text, uint32."""
        return [np.array(ids, dtype=np.uint32) for ids in self.encode(texts)]

    def decode(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids."""
        table = self.token_bytes()
        return b"".join(table[i] for i in ids if i < len(table))

    def token_bytes(self) -> list[bytes]:
        """Bytes of each id; U+2581 is SentencePiece's space."""
        if self._table is None:
            special = set(self.special.values())
            table = []
            for i in range(self.vocab_size):
                piece = self._processor.id_to_piece(i)
                if i in special:
                    table.append(b"")
                elif self._processor.is_byte(i):
                    table.append(bytes([int(piece[1:-1], 16)]))
                else:
                    table.append(piece.replace(_OWN_SPACE, " ").encode())
            self._table = table
        return self._table

    def save(self, folder: Path) -> None:
        """Write tokenizer.model."""
        (folder / "tokenizer.model").write_bytes(self._serialized)
