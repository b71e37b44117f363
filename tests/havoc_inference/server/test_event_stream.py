"""Server-sent events when something goes wrong in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct

import httpx
import pytest

from havoc_core.errors import CheckpointError
from havoc_inference.server.errors import ClientLeft
from havoc_inference.server.event_stream import EventStream
from havoc_inference.server.limits import Limits

WORDS = "a prompt"


async def never():
    await asyncio.Event().wait()


def nothing():
    pass


async def run(stream, *, send, receive=never):
    await stream({"type": "http"}, receive, send)


def test_a_model_that_fails_in_the_middle_is_an_event_with_an_error_and_then_the_end(live, said):
    engine = live.serving.engine
    working, steps = engine.runner.logits, []

    def breaks(chunks):
        steps.append(1)
        if len(steps) > 3:
            raise CheckpointError("model", "its logits are not finite numbers.", "Use an earlier checkpoint.")
        return working(chunks)

    engine.runner.logits = breaks
    try:
        asked = {"prompt": "The", "max_tokens": 50, "stream": True, "ignore_eos": True}
        streamed = httpx.post(live.url + "/v1/completions", json=asked)
        whole = httpx.post(live.url + "/v1/completions", json={**asked, "stream": False})
    finally:
        engine.runner.logits = working
    *pieces, error, done = [line.removeprefix("data: ") for line in streamed.text.split("\n\n") if line]
    assert pieces and done == "[DONE]"
    assert json.loads(error)["error"]["code"] == "model_failed"
    assert whole.status_code == 500 and whole.json()["error"]["code"] == "model_failed"
    live.until(live.is_idle)
    assert httpx.post(live.url + "/v1/completions", json={**asked, "stream": False}).status_code == 200


def test_a_bug_in_the_middle_is_an_event_with_an_error_that_does_not_quote_it(said):
    sent = []

    async def events():
        yield {"a": 1}
        raise KeyError(WORDS)

    async def send(message):
        sent.append(message.get("body", b""))

    asyncio.run(run(EventStream(events(), close=nothing, limits=Limits()), send=send))
    assert sent[1] == b'data: {"a":1}\n\n'
    assert b"internal_error" in sent[2] and sent[3] == b"data: [DONE]\n\n"
    assert WORDS.encode() not in b"".join(sent) and WORDS not in "\n".join(said)


def test_the_events_are_closed_when_the_client_leaves(said):
    closed = []

    async def events():
        try:
            yield {"a": 1}
            await never()
        finally:
            closed.append(True)

    async def ask():
        arrived = asyncio.Event()

        async def send(message):
            if message["type"] == "http.response.body":
                arrived.set()

        async def receive():
            await arrived.wait()
            return {"type": "http.disconnect"}

        with pytest.raises(ClientLeft):
            await run(EventStream(events(), close=nothing, limits=Limits()), send=send, receive=receive)

    asyncio.run(ask())
    assert closed == [True] and said == []


def test_what_was_asked_of_the_engine_is_cancelled_even_if_the_client_leaves_before_the_first_event():
    """Regression by design: a generator that never began runs no `finally` of its own."""
    begun, closed = [], []

    async def events():
        begun.append(True)
        yield {"a": 1}

    async def send(message):
        raise ConnectionError

    with pytest.raises(ConnectionError):
        asyncio.run(run(EventStream(events(), close=lambda: closed.append(True), limits=Limits()), send=send))
    assert (begun, closed) == ([], [True])


def test_a_reader_that_takes_nothing_loses_the_stream():
    closed = []

    async def events():
        try:
            while True:
                yield {"a": 1}
        finally:
            closed.append(True)

    async def send(message):
        if message["type"] == "http.response.body":
            await never()

    with pytest.raises(ClientLeft):
        asyncio.run(run(EventStream(events(), close=nothing, limits=Limits(send_timeout_s=0.05)), send=send))
    assert closed == [True]


def test_every_event_is_whole_utf_8_and_json(live):
    """Bytes that a tiny model makes up are seldom text: what is sent always is."""
    with httpx.Client(base_url=live.url) as client:
        for seed in range(5):
            asked = {"prompt": "Σ😀", "max_tokens": 60, "seed": seed, "stream": True, "echo": True, "ignore_eos": True}
            content = client.post("/v1/completions", json=asked).content
            events = content.decode("utf-8").split("\n\n")
            assert events[-2:] == ["data: [DONE]", ""]
            text = "".join(json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events[:-2])
            whole = client.post("/v1/completions", json={**asked, "stream": False}).json()["choices"][0]["text"]
            assert text == whole


def test_a_socket_that_is_reset_ends_the_stream(live):
    body = json.dumps({"prompt": "a", "max_tokens": 90, "stream": True, "ignore_eos": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with live.slow_motion(0.02), contextlib.closing(socket.create_connection(("127.0.0.1", live.port))) as raw:
        raw.sendall(head.encode() + body)
        raw.recv(10)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a farewell
        raw.close()
        assert live.until(live.is_idle) < 1.0
