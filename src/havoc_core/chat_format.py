"""Messages -> ids, and which of them are the assistant's.

    BOS <|user|> question <|end|> <|assistant|> answer <|end|> EOS

A role token opens a message, <|end|> closes it. Content is plain text: a special token that somebody types is
characters, never control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from havoc_core.errors import DataError
from havoc_core.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Rendered:
    """A dialog as ids."""

    ids: list[int]
    """BOS, messages, EOS."""
    assistant: list[bool]
    """For each id: whether the assistant is to produce it (its content and its <|end|>)."""


def render(tokenizer: Tokenizer, messages: Sequence[tuple[str, str]]) -> Rendered:
    """A whole dialog, for training.

    Raises:
        DataError: a role is unknown, or the tokenizer lacks the role tokens.
    """
    ids, assistant = [tokenizer.bos_id], [False]
    for role, content in messages:
        opening, closing = _role_id(tokenizer, role), _special(tokenizer, "<|end|>")
        inner = [*tokenizer.encode(content), closing]
        ids += [opening, *inner]
        assistant += [False, *[role == "assistant"] * len(inner)]
    return Rendered([*ids, tokenizer.eos_id], [*assistant, False])


def prompt(tokenizer: Tokenizer, messages: Sequence[tuple[str, str]]) -> list[int]:
    """A dialog up to where the assistant begins to speak, for generation."""
    return [*render(tokenizer, messages).ids[:-1], _role_id(tokenizer, "assistant")]


def has_chat_tokens(tokenizer: Tokenizer) -> bool:
    """Whether dialogs can be rendered with this tokenizer."""
    return all(f"<|{name}|>" in tokenizer.special for name in (*ROLES, "end"))


def _role_id(tokenizer: Tokenizer, role: str) -> int:
    if role not in ROLES:
        raise DataError("messages", f"the role '{role}' is unknown.", f"Use {', '.join(ROLES)}.")
    return _special(tokenizer, f"<|{role}|>")


def _special(tokenizer: Tokenizer, name: str) -> int:
    try:
        return tokenizer.special[name]
    except KeyError:
        raise DataError(
            "tokenizer", f"it has no token {name}, which dialogs need.", "Use `tokenizer.kind: bpe`, which reserves it."
        ) from None
