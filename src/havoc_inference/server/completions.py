"""`POST /v1/completions`: a text goes on."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from havoc_inference.request import Piece
from havoc_inference.server.asked import Asked, asked, usage, wants_usage
from havoc_inference.server.errors import ApiError, json_response
from havoc_inference.server.event_stream import EventStream, now
from havoc_inference.server.generation import Answers, while_connected
from havoc_inference.server.log_probs import Scored, TextOffsets, TokenNames, completion_log_probs
from havoc_inference.server.prompts import as_list, prompt_ids
from havoc_inference.server.protocol import CompletionRequest, Json
from havoc_inference.server.serving import Serving

_NEW_TOKENS = 16
"""OpenAI's default, where the context has room for so many."""


@dataclass(frozen=True)
class _Prompt:
    """A prompt, and what of it the client sees again."""

    ids: tuple[int, ...]
    hidden: int
    """Ids at the beginning that the client did not send."""
    text: str


@dataclass
class _Choice:
    """An answer while it grows."""

    prompt: _Prompt
    offsets: TextOffsets
    begun: bool = False
    num_tokens: int = 0
    parts: list[Json] = field(default_factory=list)


class Completion:
    """One request and its answers.

    Args:
        serving: the model.
        body: the request.
        prompts: with the ids that the engine is given.
        asked: what the engine is asked.
    """

    def __init__(self, serving: Serving, body: CompletionRequest, prompts: list[_Prompt], asked: Asked) -> None:
        self._serving = serving
        self._body = body
        self._asked = asked
        self._names = TokenNames(serving.tokenizer, as_ids=bool(body.return_tokens_as_token_ids))
        self._choices = [
            _Choice(prompt, TextOffsets(serving.tokenizer)) for prompt in prompts for _ in range(body.n or 1)
        ]
        self._head: Json = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": now(),
            "model": serving.name,
            "system_fingerprint": serving.fingerprint,
        }

    def start(self) -> Answers:
        """Hand everything to the engine.

        Raises:
            ApiError: as `Answers`.
        """
        return Answers(self._serving.service, self._asked.requests, metrics=self._serving.metrics)

    async def events(self, answers: Answers, *, with_usage: bool) -> AsyncGenerator[Json, None]:
        """The answers piece by piece."""
        extra: Json = {"usage": None} if with_usage else {}
        async with aclosing(answers.pieces()) as pieces:
            async for number, piece in pieces:
                yield {**self._head, "choices": [self._part(number, piece)], **extra}
        if with_usage:
            yield {**self._head, "choices": [], "usage": self._usage()}

    async def whole(self, answers: Answers) -> Json:
        """The answers when all are finished."""
        async with aclosing(answers.pieces()) as pieces:
            async for number, piece in pieces:
                self._choices[number].parts.append(self._part(number, piece))
        choices = [_joined(choice.parts) for choice in self._choices]
        return {**self._head, "choices": choices, "usage": self._usage()}

    def _usage(self) -> Json:
        return usage(self._asked.num_prompt_tokens, sum(choice.num_tokens for choice in self._choices))

    def _part(self, number: int, piece: Piece) -> Json:
        choice, body = self._choices[number], self._body
        text, scored = piece.text, [Scored(score.id, score) for score in piece.scores]
        choice.num_tokens += len(piece.ids)
        if body.echo and not choice.begun:
            text = choice.prompt.text + text
            scored = [*_of_prompt(choice.prompt, piece), *scored]
        choice.begun = True
        scores = None
        if body.logprobs is not None:
            scores = completion_log_probs(scored, top=body.logprobs, names=self._names, offsets=choice.offsets)
        return {"index": number, "text": text, "logprobs": scores, "finish_reason": piece.finish_reason}


async def answer_completion(serving: Serving, body: CompletionRequest, http: HttpRequest) -> Response:
    """The whole route.

    Raises:
        ApiError: 400, 404, 429.
        ClientLeft, TimeoutError: before a whole answer was there.
    """
    serving.require(body.model)
    _refuse(body)
    with_usage = wants_usage(body)
    prompts = await _prompts(serving, body)
    rows = [list(prompt.ids) for prompt in prompts]
    least_room = min(serving.engine.max_seq_len - len(row) for row in rows)
    completion = Completion(
        serving,
        body,
        prompts,
        asked(
            serving,
            body,
            rows,
            new_tokens=max(1, min(_NEW_TOKENS, least_room)) if body.max_tokens is None else body.max_tokens,
            top_log_probs=body.logprobs,
            echo_scores=bool(body.echo) and body.logprobs is not None,
        ),
    )
    answers = completion.start()
    if body.stream:
        events = completion.events(answers, with_usage=with_usage)
        return EventStream(events, close=answers.cancel, limits=serving.limits)
    timeout_s = serving.limits.request_timeout_s
    try:
        return json_response(await while_connected(http.receive, completion.whole(answers), timeout_s=timeout_s))
    finally:
        answers.cancel()  # where the client left before the first piece was asked for, nobody else does it


def _refuse(body: CompletionRequest) -> None:
    if body.suffix:
        raise ApiError(
            400, "suffix: this model writes what follows a text, not what comes between two.", param="suffix"
        )
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiError(
            400, "best_of: answers are not ranked; leave it out, or give it the value of n.", param="best_of"
        )
    if body.max_tokens == 0 and not body.echo:
        raise ApiError(400, "max_tokens: 0 only with echo = true; use 1 or more.", param="max_tokens")


async def _prompts(serving: Serving, body: CompletionRequest) -> list[_Prompt]:
    items = as_list("" if body.prompt is None else body.prompt, param="prompt")
    rows = await prompt_ids(serving, items, param="prompt")
    return [
        _Prompt(tuple(row), 1, item) if isinstance(item, str) else _Prompt(tuple(row), 0, serving.tokenizer.decode(row))
        for item, row in zip(items, rows, strict=True)
    ]


def _of_prompt(prompt: _Prompt, piece: Piece) -> list[Scored]:
    """Scores of the ids that the client sent. The first of them has none, whether or not something stood before it."""
    if not piece.prompt_scores:
        return []
    scored = [Scored(i, score) for i, score in zip(prompt.ids, piece.prompt_scores, strict=True)][prompt.hidden :]
    return [Scored(token.id, token.score if number else None) for number, token in enumerate(scored)]


def _joined(parts: list[Json]) -> Json:
    """Parts of a choice as one."""
    lists = [part["logprobs"] for part in parts if part["logprobs"] is not None]
    return {
        **parts[-1],
        "text": "".join(part["text"] for part in parts),
        "logprobs": {name: [item for each in lists for item in each[name]] for name in lists[0]} if lists else None,
    }
