"""What every route needs: the model, its name, its limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from havoc_core.costs import num_parameters
from havoc_core.tokenizer import Tokenizer
from havoc_inference.engine import Engine
from havoc_inference.server.errors import ApiError
from havoc_inference.server.limits import Limits
from havoc_inference.server.metrics import Metrics
from havoc_inference.server.protocol import Json
from havoc_inference.service import EngineService

_SMALL = 1_000_000_000
"""Parameters below which a model answers in form, not in fact."""


@dataclass(frozen=True)
class Serving:
    """One model at the service of all requests."""

    engine: Engine
    service: EngineService
    name: str
    """As clients call it."""
    created: int
    """When it was loaded, in seconds since 1970."""
    limits: Limits
    metrics: Metrics

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own."""
        return self.engine.tokenizer

    @cached_property
    def longest_token_bytes(self) -> int:
        """Bytes that one token stands for at most."""
        return int(self.tokenizer.token_lengths().max())

    @property
    def max_prompt_tokens(self) -> int:
        """In one prompt."""
        room = self.engine.max_seq_len
        return room if self.limits.max_prompt_tokens is None else min(room, self.limits.max_prompt_tokens)

    @property
    def fingerprint(self) -> str:
        """What answers depend on besides the request: which weights."""
        return f"havoc-step-{self.engine.loaded.step}"

    def describe(self) -> Json:
        """The model, as `/v1/models` lists it."""
        loaded = self.engine.loaded
        parameters = num_parameters(loaded.config)
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "havoc",
            "max_model_len": self.engine.max_seq_len,
            "havoc": {
                "step": loaded.step,
                "parameters": parameters,
                "dummy_data": loaded.dummy_data,
                "demo": loaded.dummy_data or parameters < _SMALL,
            },
        }

    def require(self, model: str | None) -> None:
        """Refuse a name that is not the model's.

        Raises:
            ApiError: 404.
        """
        if model is not None and model != self.name:
            shown = model if len(model) <= 100 else model[:100] + "…"
            raise ApiError(
                404,
                f"The model '{shown}' does not exist; this server has '{self.name}'.",
                param="model",
                code="model_not_found",
            )
