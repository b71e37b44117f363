"""What a client sends as a prompt -> ids, within the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from havoc_core import chat_format
from havoc_core.errors import DataError
from havoc_inference.server.errors import ApiError, too_long, translated
from havoc_inference.server.protocol import Message
from havoc_inference.server.serving import Serving

_AT_ONCE = 16_384
"""Characters that are encoded without leaving the event loop: about 10 ms."""

_T = TypeVar("_T")

Input = str | list[str] | list[int] | list[list[int]]
"""Text or ids, one or several."""


def as_list(given: Input, *, param: str) -> list[str] | list[list[int]]:
    """Several texts, or several rows of ids.

    Raises:
        ApiError: 400 there is none, or a row of ids is empty.
    """
    if isinstance(given, str):
        return [given]
    if not given or any(item == [] for item in given):
        raise ApiError(
            400, f"{param}: it is empty. Send a text, or at least one id.", param=param, code="invalid_value"
        )
    rows: list[str] | list[list[int]] = [given] if isinstance(given[0], int) else given
    return rows


async def prompt_ids(serving: Serving, items: list[str] | list[list[int]], *, param: str) -> list[list[int]]:
    """Ids of each: a text gets the beginning-of-text token before it, ids are taken as they are.

    Raises:
        ApiError: 400 one is longer than the limit, or holds an id that does not exist.
    """
    texts = [item for item in items if isinstance(item, str)]
    rows = await _encode(serving, texts, param=param) if texts else [item for item in items if isinstance(item, list)]
    known = serving.engine.loaded.config.vocab_size
    for row in rows:
        if len(row) > serving.max_prompt_tokens:
            raise too_long(len(row), room=serving.max_prompt_tokens, param=param)
        if max(row) >= known:
            raise ApiError(
                400, f"The id {max(row)} does not exist; this model has {known:,}.", param=param, code="invalid_value"
            )
    return rows


async def dialog_ids(serving: Serving, messages: Sequence[Message]) -> list[int]:
    """Ids of a dialog up to where the assistant begins.

    Raises:
        ApiError: 400 it is longer than the limit, or the model knows no dialogs.
    """
    dialog = [(_role(message), _content(message)) for message in messages]
    _refuse_endless(serving, [content for _, content in dialog], param="messages")
    try:
        ids = await _off_the_loop(
            sum(len(content) for _, content in dialog), lambda: chat_format.prompt(serving.tokenizer, dialog)
        )
    except DataError as error:
        raise translated(error, param="messages") from None
    if len(ids) > serving.max_prompt_tokens:
        raise too_long(len(ids), room=serving.max_prompt_tokens, param="messages")
    return ids


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


def _content(message: Message) -> str:
    content = message.content
    return content if isinstance(content, str) else "".join(part.text for part in content)


async def _encode(serving: Serving, texts: list[str], *, param: str) -> list[list[int]]:
    for text in texts:
        _refuse_endless(serving, [text], param=param)
    bos = serving.tokenizer.bos_id
    encoded = await _off_the_loop(sum(map(len, texts)), lambda: serving.tokenizer.encode_batch(texts))
    return [[bos, *ids] for ids in encoded]


def _refuse_endless(serving: Serving, texts: Sequence[str], *, param: str) -> None:
    """Refuse what cannot fit whatever its tokens are; encoding megabytes would hold up everybody else."""
    num_bytes = sum(len(text.encode()) for text in texts)
    least = num_bytes // serving.longest_token_bytes
    if least > serving.max_prompt_tokens:
        raise too_long(least, room=serving.max_prompt_tokens, param=param)


async def _off_the_loop(num_characters: int, work: Callable[[], _T]) -> _T:
    return work() if num_characters <= _AT_ONCE else await asyncio.to_thread(work)
