"""`/tokenize`, `/detokenize`, `/tokenizer_info`: text <-> ids for clients without the tokenizer.

The shapes are vLLM's, which lm-eval's `local-completions` reads. The name of a special token in a text is text here as
everywhere: its id is in `/tokenizer_info`.
"""

from __future__ import annotations

from havoc_core import chat_format
from havoc_core.tokenizer import CHAT_TEMPLATE
from havoc_inference.server.errors import ApiError
from havoc_inference.server.prompts import dialog_ids, prompt_ids
from havoc_inference.server.protocol import DetokenizeRequest, Json, TokenizeRequest
from havoc_inference.server.serving import Serving


async def tokenize(serving: Serving, body: TokenizeRequest) -> Json:
    """Ids of a text or of a dialog.

    Raises:
        ApiError: 400 both or neither are given, or it is longer than the context.
    """
    serving.require(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "Send either prompt or messages.", param="prompt", code="invalid_value")
    if body.messages is not None:
        ids = await dialog_ids(serving, body.messages)
    else:
        (row,) = await prompt_ids(serving, [body.prompt or ""], param="prompt")
        ids = row if body.add_special_tokens else row[1:]
    return {"tokens": ids, "count": len(ids), "max_model_len": serving.engine.max_seq_len}


def detokenize(serving: Serving, body: DetokenizeRequest) -> Json:
    """The text of ids; special tokens stand for nothing.

    Raises:
        ApiError: 400 an id does not exist.
    """
    serving.require(body.model)
    known = serving.engine.loaded.config.vocab_size
    if max(body.tokens, default=0) >= known:
        raise ApiError(
            400,
            f"The id {max(body.tokens)} does not exist; this model has {known:,}.",
            param="tokens",
            code="invalid_value",
        )
    return {"prompt": serving.tokenizer.decode(body.tokens)}


def tokenizer_info(serving: Serving) -> Json:
    """Special tokens by name and id, and the format of dialogs."""
    tokenizer = serving.tokenizer
    names = {i: name for name, i in tokenizer.special.items()}
    ends = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    return {
        **{f"{end}_token": names.get(i) for end, i in ends.items()},
        **{f"{end}_token_id": i for end, i in ends.items()},
        "chat_template": CHAT_TEMPLATE if chat_format.has_chat_tokens(tokenizer) else None,
        "vocab_size": tokenizer.vocab_size,
        "fingerprint": tokenizer.fingerprint(),
        "model_max_length": serving.engine.max_seq_len,
    }
