"""`/v1/embeddings`."""

from __future__ import annotations

import base64
import struct

import pytest


def test_a_text_has_the_engines_own_numbers_and_says_what_they_are(client, engine):
    texts = ["The mean", "Σ and 😀"]
    out = client.post("/v1/embeddings", json={"model": "tiny", "input": texts}).json()
    expected = engine.embed([engine.encode_prompt(text) for text in texts])
    for number, (entry, vector) in enumerate(zip(out["data"], expected, strict=True)):
        assert (entry["object"], entry["index"]) == ("embedding", number)
        assert entry["embedding"] == pytest.approx(vector, abs=1e-5)  # float32
        assert sum(x * x for x in entry["embedding"]) == pytest.approx(1.0, abs=1e-5)
    assert out["havoc"] == {"embedding": "mean of the last hidden states, of length 1"}
    assert out["usage"]["prompt_tokens"] == sum(len(engine.encode_prompt(text)) for text in texts)


def test_base64_holds_the_same_numbers(client):
    asked = {"input": "The mean"}
    plain = client.post("/v1/embeddings", json=asked).json()["data"][0]["embedding"]
    packed = client.post("/v1/embeddings", json={**asked, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert list(struct.unpack("<32f", base64.b64decode(packed))) == pytest.approx(plain, abs=1e-7)


def test_ids_are_taken_as_they_are(client, engine):
    ids = engine.encode_prompt("The mean")
    one = client.post("/v1/embeddings", json={"input": [ids, [300]]}).json()
    text = client.post("/v1/embeddings", json={"input": "The mean"}).json()
    assert one["data"][0]["embedding"] == pytest.approx(text["data"][0]["embedding"], abs=1e-6)
    assert len(one["data"]) == 2


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"input": []}, "input", "it is empty"),
        ({"input": ["a"] * 257}, "input", "257 texts; this server takes 256 at once"),
        ({"input": "a", "dimensions": 8}, "dimensions", "this model has 32 and cannot shorten them"),
        ({"input": "a" * 5000}, "input", "This model has room for 96 tokens"),
        ({"input": [640]}, "input", "The id 640 does not exist"),
        ({}, "input", "Missing parameter: 'input'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(body, param, words, client):
    answer = client.post("/v1/embeddings", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert words in answer.json()["error"]["message"]
