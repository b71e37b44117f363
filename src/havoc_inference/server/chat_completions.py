"""`POST /v1/chat/completions`: the next message of a dialog."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from havoc_inference.grammar import ANY_OBJECT
from havoc_inference.request import FinishReason, Piece, TokenScore
from havoc_inference.server.asked import Asked, asked, usage, wants_usage
from havoc_inference.server.errors import ApiError, json_response
from havoc_inference.server.event_stream import EventStream, now
from havoc_inference.server.generation import Answers, while_connected
from havoc_inference.server.log_probs import TokenNames, chat_log_probs
from havoc_inference.server.prompts import dialog_ids
from havoc_inference.server.protocol import ChatRequest, Json, ResponseFormat
from havoc_inference.server.serving import Serving


class ChatCompletion:
    """One request and its answers.

    Args:
        serving: the model.
        body: the request.
        asked: what the engine is asked.
    """

    def __init__(self, serving: Serving, body: ChatRequest, asked: Asked) -> None:
        self._serving = serving
        self._body = body
        self._asked = asked
        self._num_new = 0
        self._names = TokenNames(serving.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = now()

    def start(self) -> Answers:
        """Hand everything to the engine.

        Raises:
            ApiError: as `Answers`.
        """
        return Answers(self._serving.service, self._asked.requests, metrics=self._serving.metrics)

    async def events(self, answers: Answers, *, with_usage: bool) -> AsyncGenerator[Json, None]:
        """The answers piece by piece: first the role of each, then text, last why it ended."""
        head = self._head("chat.completion.chunk")
        extra: Json = {"usage": None} if with_usage else {}

        def chunk(number: int, delta: Json, scores: Json | None = None, reason: FinishReason | None = None) -> Json:
            choice = {"index": number, "delta": delta, "logprobs": scores, "finish_reason": reason}
            return {**head, "choices": [choice], **extra}

        for number in range(len(self._asked.requests)):
            yield chunk(number, {"role": "assistant", "content": ""})
        async with aclosing(answers.pieces()) as pieces:
            async for number, piece in pieces:
                self._num_new += len(piece.ids)
                if piece.text or piece.scores:
                    yield chunk(number, {"content": piece.text}, self._scores(piece.scores))
                if piece.finish_reason:
                    yield chunk(number, {}, None, piece.finish_reason)
        if with_usage:
            yield {**head, "choices": [], "usage": self._usage()}

    async def whole(self, answers: Answers) -> Json:
        """The answers when all are finished."""
        collected: list[list[Piece]] = [[] for _ in self._asked.requests]
        async with aclosing(answers.pieces()) as pieces:
            async for number, piece in pieces:
                collected[number].append(piece)
                self._num_new += len(piece.ids)
        choices = [self._choice(number, parts) for number, parts in enumerate(collected)]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}

    def _choice(self, number: int, pieces: list[Piece]) -> Json:
        text = "".join(piece.text for piece in pieces)
        return {
            "index": number,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": self._scores([score for piece in pieces for score in piece.scores]),
            "finish_reason": pieces[-1].finish_reason,
        }

    def _head(self, kind: str) -> Json:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._serving.name,
            "system_fingerprint": self._serving.fingerprint,
        }

    def _usage(self) -> Json:
        return usage(self._asked.num_prompt_tokens, self._num_new)

    def _scores(self, scores: list[TokenScore] | tuple[TokenScore, ...]) -> Json | None:
        if not self._body.logprobs:
            return None
        return chat_log_probs(scores, top=self._body.top_logprobs or 0, names=self._names)


async def answer_chat(serving: Serving, body: ChatRequest, http: HttpRequest) -> Response:
    """The whole route.

    Raises:
        ApiError: 400, 404, 429.
        ClientLeft, TimeoutError: before a whole answer was there.
    """
    serving.require(body.model)
    _refuse(body)
    with_usage = wants_usage(body)
    ids = await dialog_ids(serving, body.messages)
    wanted = asked(
        serving,
        body,
        [ids],
        new_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        top_log_probs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    if (schema := _json_schema(body.response_format)) is not None:
        bound = tuple(replace(request, json_schema=schema) for request in wanted.requests)
        wanted = replace(wanted, requests=bound)
    completion = ChatCompletion(serving, body, wanted)
    answers = completion.start()
    if body.stream:
        events = completion.events(answers, with_usage=with_usage)
        return EventStream(events, close=answers.cancel, limits=serving.limits)
    timeout_s = serving.limits.request_timeout_s
    try:
        return json_response(await while_connected(http.receive, completion.whole(answers), timeout_s=timeout_s))
    finally:
        answers.cancel()  # where the client left before the first piece was asked for, nobody else does it


def _json_schema(wanted: ResponseFormat | None) -> str | None:
    if wanted is None:
        return None
    if (wanted.json_schema is not None) != (wanted.type == "json_schema"):
        raise ApiError(
            400,
            "response_format: json_schema belongs to the type json_schema, and to no other.",
            param="response_format",
            code="invalid_value",
        )
    if wanted.json_schema is None:
        return ANY_OBJECT if wanted.type == "json_object" else None
    return json.dumps(wanted.json_schema.schema_)


def _refuse(body: ChatRequest) -> None:
    """Refuse by name what would change the answer and cannot be done."""
    if body.max_tokens == 0:
        raise ApiError(400, "max_tokens: use 1 or more.", param="max_tokens", code="invalid_value")
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs: only with logprobs = true.", param="top_logprobs", code="invalid_value")
    no_tools = ("none", "auto", None)
    for name, fine in (
        ("tools", not body.tools),
        ("functions", not body.functions),
        ("tool_choice", body.tool_choice in no_tools),
        ("function_call", body.function_call in no_tools),
    ):
        if not fine:
            raise ApiError(
                400, f"{name}: this model calls no tools; leave it out.", param=name, code="unsupported_parameter"
            )
    if body.modalities is not None and body.modalities != ["text"]:
        raise ApiError(
            400, "modalities: this model writes text only.", param="modalities", code="unsupported_parameter"
        )
