"""Answers for as long as somebody waits for them."""

from __future__ import annotations

import concurrent.futures
import json
import random
import socket

import httpx

from havoc_inference.server.limits import Limits

ASK = {"prompt": "The mean", "max_tokens": 80, "ignore_eos": True, "seed": 1}


def request(**body):
    content = json.dumps({**ASK, **body}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def test_a_client_that_is_killed_frees_its_slot_within_a_second(serve):
    with serve() as live, live.slow_motion(0.05):  # a whole answer takes four seconds
        for stream in (True, False):
            before = live.serving.service.statistics().cancelled
            with socket.create_connection(("127.0.0.1", live.port)) as raw:
                raw.sendall(request(stream=stream, n=3))
                live.until(lambda: live.serving.service.statistics().running == 3)
            assert live.until(live.is_idle) < 1.0
            assert live.serving.service.statistics().cancelled == before + 3


def test_a_full_queue_is_429_and_nothing_of_the_request_stays_in_it(serve):
    with serve(max_running=1, max_waiting=1) as live, live.slow_motion(0.02):
        with httpx.stream("POST", live.url + "/v1/completions", json={**ASK, "stream": True}) as running:
            pieces = running.iter_lines()
            next(pieces)
            answer = httpx.post(live.url + "/v1/completions", json={**ASK, "n": 2})
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            assert live.serving.service.statistics().waiting == 0, "the one of the two that found room is gone again"
        live.until(live.is_idle)
        assert httpx.post(live.url + "/v1/completions", json={**ASK, "max_tokens": 2}).status_code == 200


def test_an_answer_that_takes_too_long_is_408_or_an_event_with_an_error(serve):
    with serve(limits=Limits(request_timeout_s=0.2)) as live, live.slow_motion(0.05):
        answer = httpx.post(live.url + "/v1/completions", json=ASK)
        assert answer.status_code == 408
        assert "took longer than this server allows" in answer.json()["error"]["message"]
        streamed = httpx.post(live.url + "/v1/completions", json={**ASK, "stream": True})
        *_, last, done = [line for line in streamed.text.split("\n\n") if line]
        assert done == "data: [DONE]"
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        live.until(live.is_idle)


def test_others_are_answered_the_same_while_many_leave(live):
    """Random cancellation: whoever stays gets what he would get alone, and nothing is left behind."""
    draw = random.Random(5)
    asks = [{**ASK, "prompt": f"Text number {number}", "seed": number, "max_tokens": 30} for number in range(40)]
    alone = [httpx.post(live.url + "/v1/completions", json=ask).json()["choices"] for ask in asks[:5]]

    def one(number):
        if number % 2:
            with socket.create_connection(("127.0.0.1", live.port)) as raw:
                raw.sendall(
                    request(**asks[number // 2 % 40], stream=bool(number % 4 == 1))[: draw.choice([80, 10_000])]
                )
                if draw.random() < 0.5:
                    raw.settimeout(0.01)
                    try:
                        raw.recv(200)
                    except TimeoutError:
                        pass
            return None
        return httpx.post(live.url + "/v1/completions", json=asks[number // 2 % 5], timeout=30).json()["choices"]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        given = list(pool.map(one, range(80)))
    assert [choices for choices in given if choices is not None] == [alone[number % 5] for number in range(40)]
    live.until(live.is_idle)
