"""Answers that are JSON by construction: which tokens may come next, so that a text fits a schema.

llguidance (guidance-ai) follows the grammar; what is forbidden never gets a probability, so a text that ends by itself is
valid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from havoc_core.errors import ConfigError, MissingPackageError
from havoc_inference.vocabulary import Vocabulary

ANY_OBJECT = '{"type": "object"}'
"""The schema of `response_format: json_object`."""


class Constraint:
    """Where one text stands in its grammar.

    Args:
        matcher: of llguidance.
        vocabulary: of the model.
    """

    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
        self._matcher = matcher
        self._size = vocabulary.size
        self._ends = torch.tensor(sorted(vocabulary.ends))
        self._eos = vocabulary.tokenizer.eos_id

    @property
    def is_broken(self) -> bool:
        """Whether a limit of the library was passed: the text cannot be valid, and must end."""
        return bool(self._matcher.is_error())

    def forbidden(self) -> Tensor:
        """[V] bool: ids that cannot come next; a text may end where the grammar may."""
        if self.is_broken:
            only_ends = torch.ones(self._size, dtype=torch.bool)
            only_ends[self._ends] = False
            return only_ends
        packed = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        allowed = torch.from_numpy(np.unpackbits(packed, bitorder="little", count=self._size).astype(bool))
        allowed[self._ends] = bool(allowed[self._eos])
        return ~allowed

    def take(self, token: int) -> None:
        """A token came that was not forbidden."""
        if token not in self._ends:
            self._matcher.consume_token(token)


class JsonGrammars:
    """Schemas become constraints on texts of one model.

    Args:
        vocabulary: of the model.

    Raises:
        MissingPackageError: llguidance is not installed.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        try:
            import llguidance
        except ImportError:
            raise MissingPackageError(
                "json_schema", "the package llguidance is not installed.", "pip install 'havoc[serve]'"
            ) from None
        self._vocabulary = vocabulary
        self._library: Any = llguidance
        wrapper = llguidance.TokenizerWrapper(_Tokens(vocabulary))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=vocabulary.size)

    def constraint(self, schema: str) -> Constraint:
        """A fresh start in the grammar of a JSON schema.

        Raises:
            ConfigError: it is no JSON schema, or one that cannot be followed.
        """
        matcher = self._library.LLMatcher(self._tokenizer, self._grammar(schema), log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return Constraint(matcher, self._vocabulary)

    def _grammar(self, schema: str) -> str:
        try:
            values = json.loads(schema)
            # Space between tokens would let a weak model go on for ever without saying anything.
            options: Any = {"whitespace_flexible": False}
            grammar: str = self._library.LLMatcher.grammar_from_json_schema(values, overrides=options)
        except (ValueError, TypeError, RecursionError) as error:
            raise _refused(str(error)) from None
        return grammar


class _Tokens:
    """What llguidance asks of a tokenizer."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        tokenizer = vocabulary.tokenizer
        self.bos_token_id, self.eos_token_id = tokenizer.bos_id, tokenizer.eos_id
        never = vocabulary.forbidden.nonzero().flatten().tolist()
        self.special_token_ids = sorted({*never, *vocabulary.ends})
        self.tokens = [*tokenizer.token_bytes(), *[b""] * vocabulary.size][: vocabulary.size]
        for token in self.special_token_ids:
            self.tokens[token] = f"<|{token}|>".encode()
        self._encode = tokenizer.encode

    def __call__(self, text: bytes | str) -> Sequence[int]:
        return self._encode(text.decode("utf-8", errors="replace") if isinstance(text, bytes) else text)


def _refused(reason: str) -> ConfigError:
    first = (reason.splitlines() or ["it is no schema"])[0][:200]
    return ConfigError("json_schema", f"it cannot be followed ({first}).", "Send a JSON schema of common keywords.")
