"""Starting and stopping."""

from __future__ import annotations

import concurrent.futures
import json
import socket

import httpx
import pytest

from havoc_core.errors import ConfigError
from havoc_inference.server.listening import listen

ASK = {"prompt": "The mean", "max_tokens": 40, "ignore_eos": True, "seed": 1, "temperature": 0}


def test_an_answer_that_is_being_written_is_finished_when_the_server_is_told_to_stop(serve, live):
    expected = httpx.post(live.url + "/v1/completions", json=ASK).json()["choices"]
    with serve(grace_s=20) as going, concurrent.futures.ThreadPoolExecutor(2) as pool:
        with going.slow_motion(0.02):
            asked = [
                pool.submit(httpx.post, going.url + "/v1/completions", json={**ASK, "stream": stream}, timeout=30)
                for stream in (False, True)
            ]
            going.until(lambda: going.serving.service.statistics().running == 2)
            going.server.should_exit = True
            whole, streamed = (each.result() for each in asked)
        assert whole.json()["choices"] == expected
        assert streamed.text.endswith("data: [DONE]\n\n")
        with pytest.raises(httpx.ConnectError):
            httpx.get(going.url + "/health")


def test_an_answer_that_outlasts_the_grace_is_cut_and_the_server_stops(serve):
    with serve(grace_s=1) as live, concurrent.futures.ThreadPoolExecutor(1) as pool, live.slow_motion(0.2):
        asked = pool.submit(httpx.post, live.url + "/v1/completions", json=ASK, timeout=30)
        live.until(lambda: live.serving.service.statistics().running == 1)
        live.server.should_exit = True
        answer = asked.result()
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "shutting_down"


def test_a_stream_that_outlasts_the_grace_ends_with_an_error_and_as_streams_end(serve):
    """Regression: it was cut in the middle of the body, with a traceback in the log."""
    with serve(grace_s=1) as live, concurrent.futures.ThreadPoolExecutor(1) as pool, live.slow_motion(0.2):
        asked = pool.submit(httpx.post, live.url + "/v1/completions", json={**ASK, "stream": True}, timeout=30)
        live.until(lambda: live.serving.service.statistics().running == 1)
        live.server.should_exit = True
        answer = asked.result()
        *_, last, done = [line for line in answer.text.splitlines() if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
        assert done == "data: [DONE]"


def test_a_port_that_is_taken_is_said():
    with listen("127.0.0.1", 0) as first, pytest.raises(ConfigError, match="cannot be listened on"):
        listen("127.0.0.1", first.getsockname()[1])
    with pytest.raises(ConfigError, match="Name another port, or --port 0"):
        listen("127.0.0.1", 99999)


def test_answers_are_not_held_back_for_an_acknowledgement(live):
    """Regression: asyncio left Nagle's algorithm on, and every answer took 40 ms more."""
    with httpx.Client(base_url=live.url) as client:
        client.get("/health")
        fastest = min(client.get("/health").elapsed.total_seconds() for _ in range(10))
    assert fastest < 0.03


def test_it_listens_on_ipv6_where_there_is_one():
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        probe = socket.socket(socket.AF_INET6)
        probe.bind(("::1", 0))
        probe.close()
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with listen("::1", 0) as listening:
        assert listening.getsockname()[0] == "::1"
