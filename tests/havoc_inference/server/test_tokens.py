"""`/tokenize`, `/detokenize`, `/tokenizer_info`: what lm-eval's remote tokenizer asks."""

from __future__ import annotations

import pytest


def test_a_text_becomes_ids_and_text_again(client, tokenizer):
    text = "The mean of Größe, 温度 & 😀\n"
    out = client.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()
    assert out == {"tokens": tokenizer.encode(text), "count": len(tokenizer.encode(text)), "max_model_len": 96}
    assert client.post("/detokenize", json={"tokens": out["tokens"]}).json() == {"prompt": text}


def test_the_beginning_of_text_comes_along_unless_it_is_unwanted(client, tokenizer):
    assert client.post("/tokenize", json={"prompt": "x"}).json()["tokens"] == [tokenizer.bos_id, *tokenizer.encode("x")]
    assert client.post("/tokenize", json={"prompt": "", "add_special_tokens": False}).json()["tokens"] == []


def test_the_name_of_a_special_token_is_text(client, tokenizer):
    ids = client.post("/tokenize", json={"prompt": "<|eos|>", "add_special_tokens": False}).json()["tokens"]
    assert tokenizer.eos_id not in ids
    assert client.post("/detokenize", json={"tokens": [tokenizer.eos_id, *ids]}).json() == {"prompt": "<|eos|>"}


def test_the_special_tokens_are_named_with_their_ids(client, tokenizer):
    out = client.get("/tokenizer_info").json()
    assert (out["bos_token"], out["bos_token_id"]) == ("<|bos|>", tokenizer.bos_id)
    assert (out["eos_token"], out["eos_token_id"]) == ("<|eos|>", tokenizer.eos_id)
    assert "<|assistant|>" in out["chat_template"]
    assert out["fingerprint"] == tokenizer.fingerprint()


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/tokenize", {}, "Send either prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "Send either prompt or messages"),
        ("/tokenize", {"prompt": "a" * 5000}, "This model has room for 96 tokens"),
        ("/detokenize", {"tokens": [640]}, "The id 640 does not exist"),
        ("/detokenize", {"tokens": "x"}, "valid list"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(path, body, words, client):
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
