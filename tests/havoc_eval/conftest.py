"""A tokenizer, models that are none, and held-out files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from havoc_core.tokenizer import SPECIAL_TOKENS, BpeEngine, Tokenizer


class FakeModel:
    """Every id has one probability, wherever it stands; answers come from a function of the question."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        probability: Mapping[int, float] | float = 0.25,
        say: Callable[[str], str] = str,
        max_seq_len: int = 4096,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len
        self.probability = probability
        self.say = say
        self.rows: list[list[int]] = []
        self.prompts: list[str] = []

    def token_log_probs(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        self.rows += [list(row) for row in rows]
        return [[math.log(self._of(token)) for token in row[1:]] for row in rows]

    def answer(self, dialogs: Sequence[Sequence[tuple[str, str]]], *, max_new_tokens: int) -> list[str]:
        assert all(len(dialog) == 1 and dialog[0][0] == "user" for dialog in dialogs)
        return [self.say(dialog[0][1])[:max_new_tokens] for dialog in dialogs]

    def generate_text(self, prompts: Sequence[str], *, max_new_tokens: int) -> list[str]:
        self.prompts += prompts
        return [self.say(prompt)[:max_new_tokens] for prompt in prompts]

    def _of(self, token: int) -> float:
        return self.probability if isinstance(self.probability, float) else self.probability[token]


def byte_tokenizer(specials: Sequence[str]) -> Tokenizer:
    """The special tokens first, then one id for each byte; no merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate([*specials, *alphabet])}
    fast = FastTokenizer(models.BPE(vocab=vocabulary, merges=[]))
    fast.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    return Tokenizer(BpeEngine(fast))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads than on one, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """One token a byte, and HAVOC's special tokens."""
    return byte_tokenizer(SPECIAL_TOKENS)


@pytest.fixture(scope="session")
def plain_tokenizer() -> Tokenizer:
    """One token a byte, without tokens for dialogs."""
    return byte_tokenizer(["<s>", "</s>"])


@pytest.fixture(scope="session")
def fake() -> type[FakeModel]:
    """The class, which a test cannot import from here."""
    return FakeModel


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a held-out file: texts become documents, tuples of pairs become dialogs."""

    def write_one(group: str, contents: Sequence[Any]) -> Path:
        lines = [
            {"id": f"{group}-{n}", "source": "test", "text" if isinstance(content, str) else "messages": content}
            for n, content in enumerate(contents)
        ]
        path = tmp_path / f"{group}.jsonl.zst"
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path.write_bytes(zstandard.compress(text.encode()))
        return path

    return write_one
