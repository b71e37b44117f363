"""Every route: what it lists, whom it lets in, how it says no."""

from __future__ import annotations

import json

import httpx
import pytest

from havoc_inference.server.gate import Door

JSON = {"content-type": "application/json"}
ROUTES = [
    ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"), ("POST", "/tokenize"), ("POST", "/detokenize"), ("GET", "/tokenizer_info"),
    ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/nothing"), ("OPTIONS", "/v1/models"),
    ("POST", "/"), ("POST", "/page/render"), ("GET", "/page/../v1/models"), ("GET", "/health/"),
]  # fmt: skip


def is_openai_error(answer):
    error = answer.json()["error"]
    return set(error) == {"message", "type", "param", "code"} and isinstance(error["message"], str)


def test_the_model_is_listed_with_its_context_and_what_it_is(client):
    out = client.get("/v1/models").json()
    assert out["object"] == "list"
    assert out["data"] == [client.get("/v1/models/tiny").json()]
    model = out["data"][0]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 96)
    assert model["havoc"]["step"] == 7
    assert model["havoc"]["dummy_data"] is True and model["havoc"]["demo"] is True


@pytest.mark.parametrize("name", ["gpt-4", "../tiny", "..%2f..%2fetc%2fpasswd", "tiny/", "tiny%00", "TINY", "x" * 5000])
def test_a_name_that_is_not_the_models_is_404_and_never_a_path(name, client):
    answer = client.get(f"/v1/models/{name}")
    assert answer.status_code == 404 and is_openai_error(answer)
    answer = client.post("/v1/completions", json={"model": name, "prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert len(answer.text) < 500, "a name is not sent back at any length"


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_but_health_wants_a_key(method, path, guarded, keys):
    with httpx.Client(base_url=guarded.url) as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": keys[0]}):
            answer = client.request(method, path, headers={**JSON, **headers}, content="{}")
            assert answer.status_code == 401 and is_openai_error(answer)
            assert answer.json()["error"]["code"] == "invalid_api_key"
        answer = client.request(method, path, headers={**JSON, "Authorization": f"Bearer {keys[1]}"}, content="{}")
        assert answer.status_code != 401


def test_health_and_the_page_want_none(guarded):
    with httpx.Client(base_url=guarded.url) as client:
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/").headers["content-type"].startswith("text/html")
        assert client.get("/page/chat.js").status_code == 200
        assert client.get("/page/nothing").status_code == 404


def test_two_keys_at_once_are_none(guarded, keys):
    headers = [("Authorization", f"Bearer {keys[0]}"), ("Authorization", f"Bearer {keys[1]}")]
    assert httpx.get(guarded.url + "/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe\x00", b"NaN", b'{"prompt": NaN}', b"{" * 100_000, b"[" * 100_000,
     b'{"prompt": "\\ud800"}', b'{"prompt": "a", "\\ud800": 1}', b'{"model": "\\udfff", "prompt": "a"}',
     b'{"prompt": "a", "temperature": 1e999}', b'{"prompt": "a", "seed": 1' + b"0" * 5000 + b"}",
     b'{"prompt": "a", "max_tokens": 99999999999999999999}', b'{"prompt": "a", "temperature": true}',
     b'{"prompt": {"a": 1}}', b'{"prompt": [[["a"]]]}', b'{"prompt": "a", "stop": [1]}',
     b'{"prompt": "a", "logit_bias": {"\\ud800": 1}}', b'{"prompt": "a", "n": "many"}', "{\"prompt\": \"a\"}".encode("utf-16")[:-1],
     b'{"prompt": "\xed\xa0\x80"}'],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/page/render"]
)
def test_no_body_is_so_bad_that_it_is_not_answered_with_400(body, path, client):
    answer = client.post(path, content=body, headers=JSON)
    assert answer.status_code == 400 and is_openai_error(answer), answer.text
    assert "detail" not in answer.json() and "Traceback" not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/json-seq"])
def test_a_body_of_another_kind_is_not_json(kind, client):
    """A page elsewhere can send these without asking the browser."""
    answer = client.post("/v1/completions", content=b'{"prompt": "a"}', headers={"content-type": kind})
    assert answer.status_code == 400 and is_openai_error(answer)
    assert "The body is not said to be JSON" in answer.json()["error"]["message"]


def test_nul_and_every_plane_of_unicode_are_text(client):
    text = "a\x00b\u0301 😀 \U0010ffff\u202e"
    answer = client.post("/v1/completions", json={"prompt": text, "max_tokens": 1, "echo": True})
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["text"].startswith(text)


def test_an_unknown_route_and_a_wrong_method_are_said_in_openais_shape(client):
    for method, path, status in [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405), ("PUT", "/health", 405)]:
        answer = client.request(method, path)
        assert answer.status_code == status and is_openai_error(answer)


def test_the_description_promises_no_answer_of_fastapis_own(client):
    text = client.get("/openapi.json").text
    assert "422" not in text and "HTTPValidationError" not in text
    assert json.loads(text)["paths"].keys() >= {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/models",
    }


def test_pages_of_others_may_not_ask_unless_they_are_named(client, serve):
    asks = {"Origin": "https://chat.example.org", "Access-Control-Request-Method": "POST"}
    answer = client.options("/v1/completions", headers=asks)
    assert "access-control-allow-origin" not in answer.headers
    with serve(origins=("https://chat.example.org",)) as live:
        answer = httpx.options(live.url + "/v1/completions", headers=asks)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://chat.example.org"
        other = httpx.options(live.url + "/v1/completions", headers={**asks, "Origin": "https://elsewhere.example"})
        assert "access-control-allow-origin" not in other.headers


def test_without_keys_a_server_answers_to_its_own_names_only(serve):
    """A name of somebody else that points to this machine: DNS rebinding."""
    with serve(door=Door(hosts=frozenset({"127.0.0.1", "[::1]"}))) as live:
        assert httpx.get(live.url + "/v1/models").status_code == 200
        assert httpx.get(live.url + "/v1/models", headers={"Host": "[::1]:80"}).status_code == 200
        answer = httpx.get(live.url + "/v1/models", headers={"Host": "evil.example:8000"})
        assert answer.status_code == 403 and is_openai_error(answer)
