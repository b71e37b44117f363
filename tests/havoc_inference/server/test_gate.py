"""What a request passes before it reaches a route, and what is written about it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time

import httpx
import pytest

from havoc_inference.server.gate import Door, Gate
from havoc_inference.server.limits import Limits

JSON = {"content-type": "application/json"}


def test_a_body_over_the_limit_is_413_however_it_is_sent(serve):
    with serve(limits=Limits(max_body_bytes=10_000)) as live:
        big = json.dumps({"prompt": "a" * 20_000}).encode()

        def in_chunks():
            for start in range(0, len(big), 1000):
                yield big[start : start + 1000]

        for content in (big, in_chunks()):
            answer = httpx.post(live.url + "/v1/completions", content=content, headers=JSON)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"
            assert "larger than 10,000 bytes" in answer.json()["error"]["message"]
        fits = httpx.post(live.url + "/v1/completions", json={"prompt": "a", "max_tokens": 1})
        assert fits.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"prompt": [' + ",".join(["{}"] * 300_000) + "]}",
        '{"prompt": [' + ",".join(['""'] * 300_000) + "]}",
        '{"prompt": [' + ",".join(["[1]"] * 300_000) + "]}",
        '{"stop": [' + ",".join(["{}"] * 300_000) + "]}",
        '{"logit_bias": {' + ",".join(f'"{number}": "x"' for number in range(100_000)) + "}}",
    ],
    ids=["objects", "texts", "ids", "stops", "bias"],
)
def test_a_body_of_many_wrong_things_is_refused_in_no_time(live, body):
    """Regression: each became a finding of its own, half a minute for everybody and 5 GB in the end."""
    before = time.process_time()
    answer = httpx.post(live.url + "/v1/completions", content=body.encode(), headers=JSON, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("prompt", "stop", "logit_bias")
    assert time.process_time() - before < 2.0


def test_what_is_no_http_is_answered_in_the_shape_of_all_errors(live):
    for sent in (b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", live.port), timeout=5) as raw:
            raw.sendall(sent)
            head, _, body = b"".join(iter(lambda raw=raw: raw.recv(4096), b"")).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert "no HTTP/1.1 request" in json.loads(body)["error"]["message"]


def test_a_body_that_claims_to_be_endless_is_not_waited_for(serve):
    with serve(limits=Limits(max_body_bytes=10_000)) as live:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n"
        with socket.create_connection(("127.0.0.1", live.port), timeout=5) as raw:
            raw.sendall(head)
            assert raw.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_come_is_408_and_the_connection_is_closed(serve):
    with serve(limits=Limits(body_timeout_s=0.2)) as live:
        head = b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"prompt"'
        with socket.create_connection(("127.0.0.1", live.port), timeout=5) as raw:
            raw.sendall(head)
            said = b""
            while part := raw.recv(4096):
                said += part
        assert said.startswith(b"HTTP/1.1 408")
        assert b"The body was not here after 0.2 s" in said


def test_a_client_that_leaves_before_its_body_is_whole_leaves_nothing_behind(live):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
    before = len(live.server.server_state.connections)
    with socket.create_connection(("127.0.0.1", live.port), timeout=5) as raw:
        raw.sendall(head)
        live.until(lambda: len(live.server.server_state.tasks) > 0)
    live.until(lambda: not live.server.server_state.tasks)
    assert len(live.server.server_state.connections) <= before


def test_more_requests_than_the_server_takes_are_429_and_health_is_not_one_of_them(serve):
    with serve(limits=Limits(max_requests=1)) as live, live.slow_motion(0.02):
        with httpx.stream("POST", live.url + "/v1/completions", json={"prompt": "a", "max_tokens": 60, "stream": True}):
            answer = httpx.get(live.url + "/v1/models")
            assert answer.status_code == 429
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["type"] == "rate_limit_error"
            assert httpx.get(live.url + "/health").status_code == 200
        live.until(live.is_idle)


def test_the_log_says_route_status_and_time_and_nothing_of_what_was_asked_or_answered(live, said):
    secret = "my-secret-question"
    with httpx.Client(base_url=live.url) as client:
        out = client.post(
            "/v1/completions", json={"prompt": secret, "max_tokens": 3}, headers={"x-request-id": "log-0"}
        )
        client.post("/v1/completions", json={"prompt": secret, secret: 1}, headers={"x-request-id": "log-1"})
        client.get(f"/v1/models/{secret}", headers={"x-request-id": "log-2"})
        client.get(f"/{secret}?{secret}", headers={"x-request-id": "log-3"})
    live.until(lambda: sum("log-" in line for line in said) == 4)
    assert secret not in "\n".join(said)
    mine = [line for line in said if "log-" in line]
    assert re.fullmatch(r"POST /v1/completions 200 \d+ ms log-0", mine[0])
    assert out.headers["x-request-id"] == "log-0"
    assert [line.split()[1] for line in mine] == [
        "/v1/completions",
        "/v1/completions",
        "/v1/models/{model:path}",
        "other",
    ]


@pytest.mark.parametrize("given", ["a b", "x" * 65, "new\tline", "ü"])
def test_a_request_id_that_could_forge_a_log_is_replaced(given, client):
    answer = client.get("/health", headers={"x-request-id": given.encode()})
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


WORDS = "a prompt that must not be logged"


async def _broken(scope, receive, send):
    raise ValueError(WORDS)


def test_a_failure_of_ours_is_500_in_openais_shape_and_is_logged_without_its_words(live, said):
    gate = Gate(_broken, door=Door(), limits=Limits(), metrics=live.serving.metrics)
    transport = httpx.ASGITransport(gate)

    async def ask():
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get("/v1/models")

    answer = asyncio.run(ask())
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "message": "The server failed; its log says where.", "type": "server_error", "param": None, "code": "internal_error",
    }  # fmt: skip
    assert any("failed with ValueError" in line and "test_gate.py" in line for line in said)
    assert WORDS not in "\n".join(said)


def test_a_websocket_is_turned_away(live):
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    gate = Gate(_broken, door=Door(), limits=Limits(), metrics=live.serving.metrics)
    asyncio.run(gate({"type": "websocket", "path": "/", "headers": []}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]
