"""Scores in OpenAI's two shapes."""

from __future__ import annotations

import math

from havoc_inference.request import TokenScore
from havoc_inference.server.log_probs import Scored, TextOffsets, TokenNames, chat_log_probs, completion_log_probs


def test_a_token_is_written_as_its_text_its_name_or_its_bytes(tokenizer):
    names = TokenNames(tokenizer)
    (letter,) = tokenizer.encode("x")
    lone = next(i for i, piece in enumerate(tokenizer.token_bytes()) if piece == b"\xce")
    assert names.name(letter) == "x"
    assert names.name(tokenizer.eos_id) == "<|eos|>"
    assert names.name(lone) == "bytes:\\xce"
    assert TokenNames(tokenizer, as_ids=True).name(letter) == f"token_id:{letter}"


def test_no_two_tokens_have_one_name(tokenizer):
    names = TokenNames(tokenizer)
    assert len({names.name(token) for token in range(tokenizer.vocab_size)}) == tokenizer.vocab_size


def test_the_token_itself_is_among_the_top_ones_with_the_very_same_number(tokenizer):
    a, b, c = (tokenizer.encode(letter)[0] for letter in "xyz")
    inside = TokenScore(a, -0.1, ((a, -0.1), (b, -2.0)))
    outside = TokenScore(c, -7.123456789, ((a, -0.1), (b, -2.0)))
    scored = [Scored(a, None), Scored(a, inside), Scored(c, outside)]
    out = completion_log_probs(scored, top=2, names=TokenNames(tokenizer), offsets=TextOffsets(tokenizer))
    assert out["tokens"] == ["x", "x", "z"]
    assert out["token_logprobs"] == [None, -0.1, -7.123456789]
    assert out["top_logprobs"] == [None, {"x": -0.1, "y": -2.0}, {"x": -0.1, "y": -2.0, "z": -7.123456789}]
    assert out["text_offset"] == [0, 1, 2]


def test_a_tie_is_the_most_probable_one_whichever_token_it_is(tokenizer):
    """lm-eval asks whether a token's number is the largest of the top ones."""
    a, b = (tokenizer.encode(letter)[0] for letter in "xy")
    scored = [Scored(b, TokenScore(b, -0.5, ((a, -0.5),)))]
    (top,) = completion_log_probs(scored, top=1, names=TokenNames(tokenizer), offsets=TextOffsets(tokenizer))[
        "top_logprobs"
    ]
    assert max(top.values()) == -0.5 == top["y"]


def test_what_is_impossible_is_a_number_that_json_has(tokenizer):
    (a,) = tokenizer.encode("x")
    out = chat_log_probs([TokenScore(a, -math.inf, ())], top=0, names=TokenNames(tokenizer))
    assert out["content"] == [{"token": "x", "logprob": -9999.0, "bytes": [120], "top_logprobs": []}]


def test_offsets_count_characters_over_tokens_that_are_parts_of_one(tokenizer):
    text = "a😀b"
    ids = tokenizer.encode(text)
    offsets = TextOffsets(tokenizer).of(ids)
    assert offsets[0] == 0
    assert offsets[-1] == 2, "the face is one character, of however many tokens"
    assert sorted(offsets) == offsets
    again = TextOffsets(tokenizer)
    assert again.of(ids[:2]) + again.of(ids[2:]) == offsets
