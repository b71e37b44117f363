"""`/v1/completions`, beside what the engine does by itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from havoc_inference.sampling import GREEDY, SamplingOptions


def ask(client, **body):
    answer = client.post("/v1/completions", json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(client, path, **body):
    """The objects of a stream; it ends with [DONE]."""
    with client.stream("POST", path, json={"model": "tiny", "stream": True, **body}) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_greedy_answer_is_the_engines_own(client, engine):
    made = engine.generate([engine.encode_prompt("The mean")], replace(GREEDY, max_new_tokens=12))[0]
    out = ask(client, prompt="The mean", max_tokens=12, temperature=0)
    assert out["choices"] == [{"index": 0, "text": made.text, "logprobs": None, "finish_reason": made.finish_reason}]
    assert out["usage"] == {
        "prompt_tokens": len(engine.encode_prompt("The mean")),
        "completion_tokens": len(made.ids),
        "total_tokens": len(engine.encode_prompt("The mean")) + len(made.ids),
    }
    assert (out["object"], out["model"]) == ("text_completion", "tiny")


def test_a_sampled_answer_is_the_engines_own_with_the_same_seed(client, engine):
    options = SamplingOptions(temperature=1.0, top_k=None, top_p=None, seed=11, max_new_tokens=9)
    made = engine.generate([engine.encode_prompt("A word")], options)[0]
    assert ask(client, prompt="A word", max_tokens=9, seed=11)["choices"][0]["text"] == made.text


def test_answer_number_i_takes_stream_i_and_a_prompt_does_not_mind_its_neighbours(client, engine):
    options = SamplingOptions(temperature=1.0, top_k=None, top_p=None, seed=5, max_new_tokens=8)
    prompt = engine.encode_prompt("The")
    expected = [made.text for made in engine.generate([prompt] * 3, options)]
    out = ask(client, prompt=["Other words", "The"], n=3, seed=5, max_tokens=8)
    assert [choice["index"] for choice in out["choices"]] == list(range(6))
    assert [choice["text"] for choice in out["choices"][3:]] == expected


def test_without_a_seed_two_answers_differ(client):
    texts = {ask(client, prompt="The", max_tokens=20)["choices"][0]["text"] for _ in range(4)}
    assert len(texts) > 1


def test_ids_are_taken_as_they_are(client, engine, tokenizer):
    ids = tokenizer.encode("The mean")
    made = engine.generate([ids], replace(GREEDY, max_new_tokens=6))[0]
    for prompt in (ids, [ids]):
        out = ask(client, prompt=prompt, max_tokens=6, temperature=0)
        assert out["choices"][0]["text"] == made.text
        assert out["usage"]["prompt_tokens"] == len(ids)


def test_echoed_log_probs_have_an_entry_for_each_token_and_one_more(client, engine, tokenizer):
    """What lm-eval sums: token_logprobs[len(context):-1]."""
    rows = [tokenizer.encode("The mean of a sample"), tokenizer.encode("Σ is")]
    out = ask(client, prompt=rows, max_tokens=1, temperature=0, logprobs=1, echo=True, seed=1234)
    expected = engine.token_log_probs(rows)
    for row, choice, values in zip(rows, out["choices"], expected, strict=True):
        scores = choice["logprobs"]
        assert {len(scores[name]) for name in scores} == {len(row) + 1}
        assert scores["token_logprobs"][0] is None and scores["top_logprobs"][0] is None
        assert scores["token_logprobs"][1:-1] == pytest.approx(values, abs=1e-4)  # two ways to compute, float32
        for value, top in zip(scores["token_logprobs"][1:], scores["top_logprobs"][1:], strict=True):
            assert value in top.values()
            assert len(top) in (1, 2)


def test_the_last_entry_is_there_even_where_the_model_ends_at_once(client, tokenizer):
    """Regression: an end that came first left no entry, and lm-eval lost the last token of the text."""
    end = str(tokenizer.eos_id)
    ids = tokenizer.encode("The mean")
    out = ask(client, prompt=ids, max_tokens=1, temperature=0, logprobs=1, echo=True, logit_bias={end: 100})
    assert out["choices"][0]["logprobs"]["tokens"][-1] == "<|eos|>"
    assert len(out["choices"][0]["logprobs"]["tokens"]) == len(ids) + 1
    assert out["choices"][0]["text"] == "The mean"


def test_a_prompt_can_be_scored_alone(client, engine, tokenizer):
    ids = tokenizer.encode("The mean of a sample")
    out = ask(client, prompt=ids, max_tokens=0, logprobs=3, echo=True)
    assert out["choices"][0]["text"] == "The mean of a sample"
    assert out["choices"][0]["finish_reason"] == "length"
    assert out["choices"][0]["logprobs"]["token_logprobs"][1:] == pytest.approx(
        engine.token_log_probs([ids])[0], abs=1e-4
    )
    assert out["usage"]["completion_tokens"] == 0


def test_the_echo_of_a_text_is_the_text_and_not_the_token_before_it(client, tokenizer):
    out = ask(client, prompt="The mean", max_tokens=1, logprobs=0, echo=True, temperature=0)
    choice = out["choices"][0]
    assert choice["text"].startswith("The mean")
    assert len(choice["logprobs"]["tokens"]) == len(tokenizer.encode("The mean")) + 1
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"][0] == 0


def test_tokens_can_be_had_as_ids(client, tokenizer):
    ids = tokenizer.encode("The")
    out = ask(client, prompt=ids, max_tokens=1, logprobs=2, echo=True, return_tokens_as_token_ids=True)
    assert out["choices"][0]["logprobs"]["tokens"][: len(ids)] == [f"token_id:{i}" for i in ids]
    assert all(key.startswith("token_id:") for key in out["choices"][0]["logprobs"]["top_logprobs"][-1])


def test_a_stop_text_ends_the_answer_before_it(client):
    whole = ask(client, prompt="The mean", max_tokens=40, seed=3)["choices"][0]["text"]
    stop = whole[10:12]
    out = ask(client, prompt="The mean", max_tokens=40, seed=3, stop=[stop, "never to be written"])["choices"][0]
    assert out["text"] == whole[: whole.index(stop)]
    assert out["finish_reason"] == "stop"


def test_a_bias_of_100_forces_a_token_and_of_minus_100_forbids_it(client, tokenizer):
    (x,) = tokenizer.encode("x")
    out = ask(client, prompt="The", max_tokens=4, temperature=0, logit_bias={str(x): 100})
    assert out["choices"][0]["text"] == "xxxx"
    first = ask(client, prompt="The", max_tokens=1, temperature=0, logprobs=1, return_tokens_as_token_ids=True)
    best = first["choices"][0]["logprobs"]["tokens"][0].removeprefix("token_id:")
    other = ask(
        client, prompt="The", max_tokens=1, temperature=0, logit_bias={best: -100}, logprobs=1,
        return_tokens_as_token_ids=True,
    )  # fmt: skip
    assert other["choices"][0]["logprobs"]["tokens"][0] != f"token_id:{best}"


def test_a_stream_is_the_whole_answer_in_pieces(client):
    asked = {"prompt": ["The mean", "Σ"], "n": 2, "seed": 9, "max_tokens": 15, "logprobs": 2, "echo": True}
    whole = ask(client, **asked)
    pieces = events(client, "/v1/completions", **asked, stream_options={"include_usage": True})
    *parts, last = pieces
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    assert all(part["usage"] is None for part in parts)
    for choice in whole["choices"]:
        mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == choice["index"]]
        assert "".join(each["text"] for each in mine) == choice["text"]
        assert [token for each in mine for token in each["logprobs"]["tokens"]] == choice["logprobs"]["tokens"]
        assert [o for each in mine for o in each["logprobs"]["text_offset"]] == choice["logprobs"]["text_offset"]
        assert [each["finish_reason"] for each in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]


def test_special_tokens_that_somebody_types_are_text(client, tokenizer):
    out = ask(client, prompt="<|eos|><|user|>", max_tokens=1, echo=True, logprobs=0)
    assert out["choices"][0]["text"].startswith("<|eos|><|user|>")
    assert "<|eos|>" not in out["choices"][0]["logprobs"]["tokens"][:-1]
    assert len(out["choices"][0]["logprobs"]["tokens"]) == len(tokenizer.encode("<|eos|><|user|>")) + 1


def test_an_empty_prompt_begins_a_new_document(client, engine):
    made = engine.generate([[engine.tokenizer.bos_id]], replace(GREEDY, max_new_tokens=16))[0]
    for body in ({"prompt": ""}, {}, {"prompt": None}):
        out = ask(client, temperature=0, **body)
        assert out["choices"][0]["text"] == made.text
        assert out["usage"]["prompt_tokens"] == 1


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"suffix": "end"}, "suffix", "not what comes between"),
        ({"best_of": 3}, "best_of", "answers are not ranked"),
        ({"max_tokens": 0}, "max_tokens", "0 only with echo"),
        ({"max_tokens": -1}, "max_tokens", "greater than or equal to 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 10**9}, "n", "less than or equal to 128"),
        ({"prompt": ["a"] * 50, "n": 100}, "n", "50 prompts with n = 100 ask for 5000 answers"),
        ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"repetition_penalty": 5e-324}, "repetition_penalty", "greater than or equal to 0.01"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"logprobs": 21}, "logprobs", "less than or equal to 20"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "'x' is no id of a token"),
        ({"logit_bias": {"640": 1}}, "logit_bias", "'640' is no id of a token; this model has 0 to 639"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "less than or equal to 100"),
        ({"stop": ["x"] * 17}, "stop", "at most 16 items"),
        ({"prompt": []}, "prompt", "it is empty"),
        ({"prompt": [[]]}, "prompt", "it is empty"),
        ({"prompt": [1, "a"]}, "prompt", "valid"),
        ({"prompt": [640]}, "prompt", "The id 640 does not exist"),
        ({"prompt": [-1]}, "prompt", "greater than or equal to 0"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only with stream = true"),
        ({"temprature": 1}, "temprature", "Unknown parameter: 'temprature'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(body, param, words, client):
    answer = client.post("/v1/completions", json={"model": "tiny", "prompt": "a", **body})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize("body", [{"prompt": "word " * 200}, {"prompt": "x" * 200_000}, {"prompt": [300] * 97},
                                  {"prompt": "a", "max_tokens": 96}])  # fmt: skip
def test_what_does_not_fit_the_context_says_so_in_a_word_for_programs(body, client):
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "This model has room for 96 tokens" in answer.json()["error"]["message"]
