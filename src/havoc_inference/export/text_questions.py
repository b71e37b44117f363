"""What both runtimes are asked about text: 200 lines to encode and some dialogs to render."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from havoc_core import chat_format
from havoc_core.tokenizer import Tokenizer
from havoc_inference.export import probe
from havoc_inference.export.comparison import Figure


def text_request(tokenizer: Tokenizer) -> dict[str, Any]:
    """The part of a request that is about text."""
    dialogs = _dialogs(tokenizer)
    lines = probe.lines()
    return {
        "lines": lines,
        "decode": tokenizer.encode_batch(lines),
        "dialogs": [[{"role": role, "content": content} for role, content in dialog] for dialog in dialogs],
    }


def text_figures(tokenizer: Tokenizer, answers: Mapping[str, Any]) -> list[Figure]:
    """How much of the text was treated otherwise than by our tokenizer; nothing may be.

    Args:
        tokenizer: ours.
        answers: `ids` of the lines, `begun` (ids of the first one as the runtime begins a text), `dialogs`, and `decoded`
            where the runtime decodes.
    """
    lines, dialogs = probe.lines(), _dialogs(tokenizer)
    wanted = tokenizer.encode_batch(lines)
    begun = answers["begun"] != [tokenizer.bos_id, *wanted[0]]
    figures = [
        Figure(f"of {len(lines)} lines, encoded otherwise", _unequal(wanted, answers["ids"]), 0),
        Figure("texts that do not begin with the beginning-of-text token", int(begun), 0),
    ]
    if "decoded" in answers:
        texts = [tokenizer.decode(ids) for ids in wanted]
        figures.append(Figure(f"of {len(lines)} lines, decoded otherwise", _unequal(texts, answers["decoded"]), 0))
    if dialogs:
        prompts = [chat_format.prompt(tokenizer, dialog) for dialog in dialogs]
        figures.append(
            Figure(f"of {len(dialogs)} dialogs, rendered otherwise", _unequal(prompts, answers["dialogs"]), 0)
        )
    return figures


def _dialogs(tokenizer: Tokenizer) -> Sequence[Sequence[tuple[str, str]]]:
    return probe.DIALOGS if chat_format.has_chat_tokens(tokenizer) else ()


def _unequal(ours: Sequence[object], theirs: Sequence[object]) -> int:
    return sum(one != other for one, other in zip(ours, theirs, strict=True))
