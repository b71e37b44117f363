"""Fields that completions and chat share -> what is asked of the engine."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from havoc_core.errors import ConfigError
from havoc_inference.request import Request
from havoc_inference.sampling import SamplingOptions
from havoc_inference.server.errors import ApiError, too_long, translated
from havoc_inference.server.protocol import Json, Sampled
from havoc_inference.server.serving import Serving


@dataclass(frozen=True)
class Asked:
    """Requests to the engine: the answers to the first prompt, then those to the second, ..."""

    requests: tuple[Request, ...]
    num_prompt_tokens: int
    """Of all prompts, each counted once."""


def asked(
    serving: Serving,
    body: Sampled,
    prompts: list[list[int]],
    *,
    new_tokens: int | None,
    top_log_probs: int | None = None,
    echo_scores: bool = False,
) -> Asked:
    """Everything that a body asks for, checked.

    Args:
        serving: the model.
        body: the fields.
        prompts: ids.
        new_tokens: in each answer; None: as many as there is room for.
        top_log_probs: as `Request`.
        echo_scores: score the prompt too; and one token that is asked for comes even where it is the end, because
            lm-eval takes the last score for that of the token after the text.

    Raises:
        ApiError: 400 an option is wrong, or prompt and answer together are too long.
    """
    n = body.n or 1
    if len(prompts) * n > serving.limits.max_choices:
        raise ApiError(
            400,
            f"{len(prompts)} prompts with n = {n} ask for {len(prompts) * n} answers; "
            f"this server gives {serving.limits.max_choices} to one request.",
            param="n",
            code="invalid_value",
        )
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**63
    requests = tuple(
        Request(
            prompt=tuple(ids),
            options=_options(serving, body, seed=seed, max_new_tokens=_room(serving, ids, new_tokens)),
            stream=number,
            stop=_stop(body),
            top_log_probs=top_log_probs,
            score_prompt=echo_scores,
            ignore_end=bool(body.ignore_eos) or (echo_scores and new_tokens == 1),
        )
        for ids in prompts
        for number in range(n)
    )
    return Asked(requests, sum(map(len, prompts)))


def usage(num_prompt_tokens: int, num_new_tokens: int) -> Json:
    """What was read and written."""
    return {
        "prompt_tokens": num_prompt_tokens,
        "completion_tokens": num_new_tokens,
        "total_tokens": num_prompt_tokens + num_new_tokens,
    }


def wants_usage(body: Sampled) -> bool:
    """Whether a stream is to end with the number of tokens.

    Raises:
        ApiError: 400 it is asked for without a stream.
    """
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options: only with stream = true.", param="stream_options", code="invalid_value")
    return body.stream_options is not None and body.stream_options.include_usage


def _room(serving: Serving, prompt: list[int], wanted: int | None) -> int:
    room, limit = serving.engine.max_seq_len - len(prompt), serving.limits.max_new_tokens
    least = 1 if wanted is None else wanted
    if least > room:
        raise too_long(len(prompt), room=serving.engine.max_seq_len, new_tokens=least)
    if wanted is None:
        return room if limit is None else min(room, limit)
    if limit is not None and wanted > limit:
        raise ApiError(
            400,
            f"{wanted:,} tokens are asked for; this server gives {limit:,} in one answer.",
            param="max_tokens",
            code="invalid_value",
        )
    return wanted


def _stop(body: Sampled) -> tuple[str, ...]:
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return tuple(text for text in stop if text)  # an empty one would end everything before it began


def _options(serving: Serving, body: Sampled, *, seed: int, max_new_tokens: int) -> SamplingOptions:
    try:
        return SamplingOptions(
            temperature=1.0 if body.temperature is None else body.temperature,
            top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
            top_p=body.top_p,
            min_p=body.min_p,
            repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=_logit_bias(serving, body),
            seed=seed,
            max_new_tokens=max_new_tokens,
        )
    except ConfigError as error:
        raise translated(error) from None


def _logit_bias(serving: Serving, body: Sampled) -> tuple[tuple[int, float], ...]:
    known = serving.engine.loaded.config.vocab_size
    out = {}
    for name, bias in (body.logit_bias or {}).items():
        # isdecimal alone takes digits of all scripts, and int() of a long number takes long.
        if not (name.isascii() and name.isdecimal() and len(name) < 10 and int(name) < known):
            shown = name if len(name) <= 20 else name[:20] + "…"
            raise ApiError(
                400,
                f"logit_bias: '{shown}' is no id of a token; this model has 0 to {known - 1:,}.",
                param="logit_bias",
                code="invalid_value",
            )
        out[int(name)] = bias
    return tuple(sorted(out.items()))
