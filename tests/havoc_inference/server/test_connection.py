"""Connections that say nothing are closed, and those that work are left alone."""

from __future__ import annotations

import contextlib
import socket

import httpx

from havoc_inference.server.limits import Limits

HALF = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Le"


def is_closed(raw):
    """Whether the other side has closed; waits for it."""
    try:
        return raw.recv(1) == b""
    except ConnectionResetError:
        return True


def test_two_hundred_clients_with_half_a_request_are_closed_and_hold_up_nobody(serve):
    with serve(limits=Limits(head_timeout_s=0.5, max_connections=1024)) as live, contextlib.ExitStack() as stack:
        hanging = []
        for number in range(200):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=10))
            raw.sendall(HALF[: number % len(HALF)])  # the first says nothing at all
            hanging.append(raw)
        answer = httpx.post(live.url + "/v1/completions", json={"prompt": "a", "max_tokens": 2}, timeout=5)
        assert answer.status_code == 200
        assert all(map(is_closed, hanging))
        live.until(lambda: not live.server.server_state.connections)
        text = httpx.get(live.url + "/metrics").text
        assert "havoc_slow_connections_total 200.0" in text


def test_bytes_that_trickle_do_not_keep_a_connection_open(serve):
    with (
        serve(limits=Limits(head_timeout_s=0.3)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=0.02) as raw,
    ):
        sent = 0

        def goes_on():
            nonlocal sent
            try:
                raw.sendall(b"G" if sent == 0 else b"x")
                sent += 1
                return raw.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        live.until(goes_on, within_s=5)
        assert sent > 5, "one byte every 0.02 s, and closed all the same"


def test_a_later_request_of_a_connection_is_timed_too(serve):
    with (
        serve(limits=Limits(head_timeout_s=0.3)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as raw,
    ):
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        said = b""
        while b'{"status":"ok"}' not in said:
            said += raw.recv(4096)
        raw.sendall(HALF)
        assert is_closed(raw)


def test_an_answer_that_takes_longer_than_a_head_may_is_not_cut(serve):
    with serve(limits=Limits(head_timeout_s=0.1)) as live, live.slow_motion(0.02):
        answer = httpx.post(live.url + "/v1/completions", json={"prompt": "a", "max_tokens": 20, "ignore_eos": True})
        assert answer.elapsed.total_seconds() > 0.3
        assert answer.json()["usage"]["completion_tokens"] == 20


def test_one_connection_too_many_is_closed_at_once(serve):
    with serve(limits=Limits(max_connections=2)) as live, contextlib.ExitStack() as stack:
        first, second, third = (
            stack.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=5)) for _ in range(3)
        )
        assert is_closed(third)
        for raw in (first, second):
            raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_head_without_end_is_refused(live):
    with socket.create_connection(("127.0.0.1", live.port), timeout=5) as raw:
        with contextlib.suppress(OSError):
            raw.sendall(b"GET /health HTTP/1.1\r\nX: " + b"a" * 200_000)
        assert raw.recv(4096).startswith(b"HTTP/1.1 400")
