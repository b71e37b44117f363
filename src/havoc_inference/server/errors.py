"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from havoc_core.errors import ConfigError, DataError, HavocError
from havoc_inference.service import Busy

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is not answered as asked.

    Args:
        status: of HTTP; 4xx: the client's doing, 5xx: ours.
        message: what was found and what to do.
        param: the field of the request that is meant.
        code: a word for programs, as OpenAI has them where it has one.
        headers: to be sent along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        """The whole answer."""
        return json_response(self.body(), status=self.status, headers=self.headers)


class ClientLeft(Exception):  # noqa: N818 - nothing is wrong with the request
    """The client hung up: whatever is answered, nobody reads it."""


def to_json(value: Any) -> str:
    """JSON in ASCII: a lone surrogate, which a client may send in the name of a field, has no UTF-8."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer of JSON."""
    return Response(to_json(value), status, headers=headers, media_type="application/json")


def shutting_down() -> ApiError:
    """The server stops, and the answer was not finished in the time that was left."""
    return ApiError(503, "The server is shutting down.", code="shutting_down")


def busy(retry_after_s: int) -> ApiError:
    """The queue is full."""
    return ApiError(
        429,
        f"The server is busy: its queue is full. Ask again in {retry_after_s} s.",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(retry_after_s)},
    )


def too_long(num_tokens: int, *, room: int, new_tokens: int = 0, param: str = "prompt") -> ApiError:
    """A prompt does not fit, alone or with the answer that is asked for."""
    wanted = f" and {new_tokens:,} more for the answer" if new_tokens else ""
    return ApiError(
        400,
        f"This model has room for {room:,} tokens; the prompt has {num_tokens:,}{wanted}. Shorten one of them.",
        param=param,
        code="context_length_exceeded",
    )


def translated(error: Exception, *, param: str | None = None) -> ApiError:
    """What the engine refuses, as an answer.

    Args:
        error: what was raised; a setting's or a text's fault is the client's, anything else ours.
        param: the field of the request that is meant; None: where the error says it is.
    """
    match error:
        case ApiError():
            return error
        case Busy():
            return busy(error.retry_after_s)
        case ConfigError() | DataError():
            return ApiError(400, str(error), param=param or error.where)
        case HavocError():
            return ApiError(500, f"The model failed: {error}", code="model_failed")
        case TimeoutError():
            return ApiError(
                408, "The answer took longer than this server allows. Ask for fewer tokens.", code="timeout"
            )
        case _:
            return ApiError(500, "The server failed; its log says where.", code="internal_error")


def from_validation(problems: Sequence[Mapping[str, Any]]) -> ApiError:
    """The first of pydantic's findings, without what was sent: a prompt must not come back in a log of errors."""
    first = problems[0]
    where = [part for part in first["loc"] if part not in ("body", "query", "path")]
    if first["type"] == "json_invalid":
        return ApiError(400, "The body is no JSON. Send JSON with the header Content-Type: application/json.")
    if not where:
        return ApiError(400, "The body is no JSON object. Send one with the header Content-Type: application/json.")
    name = str(where[0])
    if first["type"] == "extra_forbidden":
        path = ".".join(str(part) for part in where)
        return ApiError(400, f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")
    if first["type"] == "missing":
        return ApiError(400, f"Missing parameter: '{name}'.", param=name, code="missing_required_parameter")
    # A field that may be of several types has a finding for each of them.
    said = dict.fromkeys(str(each["msg"]) for each in problems if where[0] in each["loc"])
    return ApiError(400, f"{name}: {'; or: '.join(list(said)[:4])}.", param=name, code="invalid_value")
