"""Counters for Prometheus."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families


def samples(live):
    families = text_string_to_metric_families(httpx.get(live.url + "/metrics").text)
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for f in families for each in f.samples}


def test_requests_tokens_and_times_are_counted_by_route(serve):
    with serve() as live:
        out = httpx.post(
            live.url + "/v1/completions", json={"prompt": "The", "max_tokens": 5, "ignore_eos": True}
        ).json()
        httpx.get(live.url + "/v1/models/other")
        httpx.get(live.url + "/what-somebody-asked-for")
        found = samples(live)
    route = (("route", "/v1/completions"),)
    assert found["havoc_requests_total", (*route, ("status", "200"))] == 1
    assert found["havoc_requests_total", (("route", "/v1/models/{model:path}"), ("status", "404"))] == 1
    assert found["havoc_requests_total", (("route", "other"), ("status", "404"))] == 1
    assert found["havoc_request_seconds_count", route] == 1
    assert found["havoc_first_token_seconds_count", ()] == 1
    assert found["havoc_engine_prompt_tokens_total", ()] == out["usage"]["prompt_tokens"]
    assert found["havoc_engine_generated_tokens_total", ()] == 5
    assert found["havoc_requests_at_work", ()] == 1, "the one that asks"


def test_two_servers_do_not_share_their_counters(serve):
    with serve() as one, serve() as other:
        httpx.get(one.url + "/v1/models")
        key = ("havoc_requests_total", (("route", "/v1/models"), ("status", "200")))
        assert samples(one)[key] == 1
        assert key not in samples(other)
