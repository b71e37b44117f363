"""Encoding through tiktoken, two to three times as fast, where it gives the very same ids.

A byte-level BPE of the `tokenizers` library is translated into tiktoken's terms. The two differ in their regular expressions'
tables of letters and in what they do with a word that is a token as a whole, so nothing is taken for granted: every token is
checked when the encoder is made, a text of thousands of characters is encoded with both, and a text with any other character,
or with a word so long that tiktoken's merging would be slow, is left to the `tokenizers` library.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer as FastTokenizer

_LONGEST_WORD = 2000
"""Characters between two spaces; the time for a longer word would depend on how tiktoken merges it."""
_PROVEN = ((0x00, 0x2C00), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xFB00, 0xFB07), (0xFFFD, 0xFFFE), (0x1D400, 0x1D800))
"""Ranges of code points that are compared: the scripts of Europe and the Near East, symbols of mathematics, Japanese syllables,
some Chinese. Ends are not included."""
_LONG_SPACE = re.compile(r"(?<!\s)\s{512}")  # looked for at the beginning of a run only: linear in any text
_NO_SPACE = re.compile("[\x1c-\x1f]")
"""Space to Python and no space to the pattern: words would be longer than they look."""
_PROBE_MERGES = 20_000
_Merge = tuple[bytes, bytes]


class FastBpe:
    """Gives the ids that a `tokenizers` tokenizer would give."""

    def __init__(self, encoding: Any, ids: np.ndarray) -> None:
        self._encoding = encoding
        self._ids = ids
        spans = "".join(f"{chr(first)}-{chr(last - 1)}" for first, last in _PROVEN)
        self._unproven = re.compile(f"[^{re.escape(spans[0])}{spans[1:]}]")

    @classmethod
    def of(cls, fast: FastTokenizer) -> FastBpe | None:
        """The encoder for a tokenizer; None where tiktoken is not installed or would not give the same ids."""
        encoder = cls.translated(json.loads(fast.to_str()))
        return encoder if encoder is not None and encoder.agrees_with(fast) else None

    @classmethod
    def translated(cls, spec: Mapping[str, Any]) -> FastBpe | None:
        """A tokenizer.json in tiktoken's terms, not yet compared; None where it has none, or tiktoken is not installed."""
        try:
            import tiktoken
        except ImportError:
            return None
        pattern = _pattern(spec)
        merges = None if pattern is None else _merges(spec)
        if pattern is None or merges is None:
            return None
        ranks = _ranks(merges)
        vocab = spec["model"]["vocab"]
        written = [] if ranks is None else [_written(token) for token in ranks]
        if ranks is None or not all(token in vocab for token in written):
            return None
        if spec["model"].get("ignore_merges") and len(vocab) != len(written):
            return None  # a word that is a token would be taken whole, though no merge gives it
        try:
            encoding = tiktoken.Encoding("havoc", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        except ValueError:  # the pattern means nothing to tiktoken
            return None
        return cls(encoding, np.array([vocab[token] for token in written], dtype=np.uint32))

    def agrees_with(self, fast: FastTokenizer) -> bool:
        """Whether a text with every proven character, and with contests of merges, gets the same ids from both."""
        merges = _merges(json.loads(fast.to_str())) or []
        probe = _characters() + self._unproven.sub(" ", _contests(merges))
        ids = fast.encode_batch_fast([probe], add_special_tokens=False)[0].ids
        return np.array_equal(ids, self.encode(probe))

    def takes(self, text: str) -> bool:
        """Whether this encoder may be used for a text."""
        if not text.isascii() and self._unproven.search(text):
            return False
        if _NO_SPACE.search(text) or _LONG_SPACE.search(text):
            return False
        return max(map(len, text.split()), default=0) <= _LONGEST_WORD

    def encode(self, text: str) -> np.ndarray:
        """uint32 ids of a text that it `takes`."""
        ids: np.ndarray = self._ids[self._encoding.encode_to_numpy(text, disallowed_special=())]
        return ids


def _pattern(spec: Mapping[str, Any]) -> str | None:
    """The regular expression that a tokenizer splits by, if that is all it does before the merges."""
    model, steps = spec["model"], (spec["pre_tokenizer"] or {}).get("pretokenizers", [])
    plain = (
        model["type"] == "BPE"
        and not any(
            model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
        )
        and spec["normalizer"] is None
        and all(token["special"] for token in spec["added_tokens"])
        and [step["type"] for step in steps] == ["Split", "ByteLevel"]
    )
    if not plain or steps[1]["add_prefix_space"] or steps[1]["use_regex"] or not steps[1].get("trim_offsets", True):
        return None
    split = steps[0]
    pattern: str | None = split["pattern"].get("Regex")
    return pattern if split["behavior"] == "Isolated" and not split["invert"] else None


def _merges(spec: Mapping[str, Any]) -> list[_Merge] | None:
    """The merges in their order, as bytes; None if one is not written in the alphabet of bytes."""
    back = {char: byte for byte, char in byte_alphabet().items()}
    merges = []
    for merge in spec["model"]["merges"]:
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        if not set(left + right) <= back.keys():
            return None
        merges.append((bytes(back[c] for c in left), bytes(back[c] for c in right)))
    return merges


def _ranks(merges: list[_Merge]) -> dict[bytes, int] | None:
    """Token -> rank, if tiktoken, which knows tokens only, must do what `tokenizers` does, which knows pairs.

    It must where every merge is of earlier tokens, no two give the same token, and the bytes of every token merge to it.
    Then, whatever stands around the bytes of a token, both come to its own pair and to no other: merges of lower rank
    inside of it are those that are made where it stands alone.
    """
    ranks = {bytes([byte]): byte for byte in range(256)}
    order = {pair: rank for rank, pair in enumerate(merges, start=256)}
    for (left, right), rank in order.items():
        if left not in ranks or right not in ranks or left + right in ranks:
            return None
        ranks[left + right] = rank
    return ranks if len(order) == len(merges) and all(_whole(token, order) for token in ranks) else None


def _whole(token: bytes, order: Mapping[_Merge, int]) -> bool:
    """Whether merging the bytes of a token gives the token."""
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 1:
        best, place = min((order.get((pieces[i], pieces[i + 1]), 1 << 31), i) for i in range(len(pieces) - 1))
        if best == 1 << 31:
            return False
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return True


def _written(token: bytes) -> str:
    alphabet = byte_alphabet()
    return "".join(alphabet[byte] for byte in token)


def _characters() -> str:
    """Every proven character between letters, between digits, after a space, an apostrophe and itself."""
    characters = [chr(code) for first, last in _PROVEN for code in range(first, last)]
    return "".join(f"a{c}b 1{c}2 {c}{c} '{c} \n{c}\n" for c in characters)


def _contests(merges: list[_Merge]) -> str:
    """For each merge its token, and where it competes with the merges next to it in rank: l r z, where r z is a merge too."""
    rivals: dict[bytes, list[int]] = {}
    for rank, (left, _) in enumerate(merges):
        rivals.setdefault(left, []).append(rank)
    words = []
    for rank in range(0, len(merges), -(-len(merges) // _PROBE_MERGES) or 1):
        left, right = merges[rank]
        others = rivals.get(right, [])
        at = bisect_left(others, rank)
        words.append(left + right)
        words += [left + right + merges[other][1] for other in others[max(0, at - 1) : at + 2]]
    return b"\n ".join(words).decode("utf-8", errors="replace")


def byte_alphabet() -> dict[int, str]:
    """Byte -> the printable character that byte-level BPE writes for it (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {byte: chr(byte) for byte in plain}
    table.update({byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in table)})
    return table
