"""Answers that are JSON by construction: which tokens may come next, so that a text fits a schema.

llguidance (guidance-ai) follows the grammar; what is forbidden never gets a probability, so a text that ends by itself is
valid.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from havoc_core.errors import ConfigError, MissingPackageError
from havoc_inference.vocabulary import Vocabulary

MAX_SCHEMA = 20_000
"""Characters of a schema; one of this size is read in a twentieth of a second."""
_NUM_KNOWN = 32
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
        self._known: OrderedDict[str, Any] = OrderedDict()
        """Schema -> a matcher at its beginning."""
        self._lock = threading.Lock()

    def constraint(self, schema: str) -> Constraint:
        """A fresh start in the grammar of a JSON schema; one that was read lately is not read again. For any thread.

        Raises:
            ConfigError: it is no JSON schema, or one that cannot be followed.
        """
        with self._lock:
            if schema not in self._known:
                self._known[schema] = self._read(schema)
                if len(self._known) > _NUM_KNOWN:
                    self._known.popitem(last=False)
            self._known.move_to_end(schema)
            return Constraint(self._known[schema].deep_copy(), self._vocabulary)

    def _read(self, schema: str) -> Any:
        if len(schema) > MAX_SCHEMA:
            raise _refused(f"it has {len(schema):,} characters; {MAX_SCHEMA:,} are the limit")
        matcher = self._library.LLMatcher(self._tokenizer, self._grammar(schema), log_level=0)
        if matcher.is_error():
            raise _refused(matcher.get_error())
        return matcher

    def _grammar(self, schema: str) -> str:
        try:
            values = json.loads(schema)
            if _has_multiples(values):
                raise ValueError("multipleOf: what follows it grows with its number beyond any memory")
            # Space between tokens would let a weak model go on for ever without saying anything.
            options: Any = {"whitespace_flexible": False}
            grammar: str = self._library.LLMatcher.grammar_from_json_schema(values, overrides=options)
        except (ValueError, TypeError, RecursionError) as error:
            raise _refused(str(error)) from None
        return grammar


def _has_multiples(value: Any) -> bool:
    """Whether the keyword stands anywhere; a property of that name has a schema, and no number, for its value."""
    if isinstance(value, dict):
        return isinstance(value.get("multipleOf"), int | float) or any(map(_has_multiples, value.values()))
    return isinstance(value, list) and any(map(_has_multiples, value))


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
