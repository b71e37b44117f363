"""`POST /v1/embeddings`: the mean of a text's last hidden states.

A language model that was never trained to compare texts: good for a first look, not a match for a model of embeddings.
"""

from __future__ import annotations

import base64
import struct

from starlette.requests import Request as HttpRequest

from havoc_core.errors import ConfigError
from havoc_inference.server.errors import ApiError, translated
from havoc_inference.server.generation import while_connected
from havoc_inference.server.prompts import as_list, prompt_ids
from havoc_inference.server.protocol import EmbeddingRequest, Json
from havoc_inference.server.serving import Serving
from havoc_inference.service import Busy

_AT_ONCE = 4
"""Texts that are embedded between two steps of the engine: for so long those who chat wait."""
_HOW = "mean of the last hidden states, of length 1"


async def embed(serving: Serving, body: EmbeddingRequest, http: HttpRequest) -> Json:
    """The whole route.

    Raises:
        ApiError: 400, 404, 429.
        ClientLeft, TimeoutError: before the answer was there.
    """
    serving.require(body.model)
    width = serving.engine.loaded.config.d_model
    if body.dimensions not in (None, width):
        raise ApiError(
            400,
            f"dimensions: this model has {width:,} and cannot shorten them.",
            param="dimensions",
            code="invalid_value",
        )
    items = as_list(body.input, param="input")
    if len(items) > serving.limits.max_rows:
        raise ApiError(
            400,
            f"input: {len(items):,} texts; this server takes {serving.limits.max_rows:,} at once.",
            param="input",
            code="invalid_value",
        )
    rows = await prompt_ids(serving, items, param="input")
    try:
        vectors = await while_connected(
            http.receive, _vectors(serving, rows), timeout_s=serving.limits.request_timeout_s
        )
    except (ConfigError, Busy) as error:
        raise translated(error, param="input" if isinstance(error, ConfigError) else None) from None
    num_tokens = sum(map(len, rows))
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": _encoded(vector, body.encoding_format)}
            for number, vector in enumerate(vectors)
        ],
        "model": serving.name,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        "havoc": {"embedding": _HOW},
    }


async def _vectors(serving: Serving, rows: list[list[int]]) -> list[list[float]]:
    out: list[list[float]] = []
    for start in range(0, len(rows), _AT_ONCE):
        out += await serving.service.embed(rows[start : start + _AT_ONCE])
    return out


def _encoded(vector: list[float], encoding: str | None) -> list[float] | str:
    if encoding != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
