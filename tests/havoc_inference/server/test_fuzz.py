"""Every route of the description, with what it allows and what it does not: never an error of ours.

Short and always the same here; `benchmarks/serve_load.py` does it at length.
"""

from __future__ import annotations

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

EXAMPLES = 25
SETTINGS = settings(
    max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
ROUTES = [
    ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings"), ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"), ("POST", "/tokenize"), ("POST", "/detokenize"), ("GET", "/tokenizer_info"),
    ("GET", "/health"), ("GET", "/metrics"),
]  # fmt: skip


def narrowed(description):
    """The description with the one model's name and ids, so that what is made up mostly reaches the engine."""
    for schema in description["components"]["schemas"].values():
        fields = schema.get("properties", {})
        if "model" in fields:
            fields["model"] = {"enum": ["tiny", None]}
        if "max_tokens" in fields:
            fields["max_tokens"]["anyOf"][0].update(minimum=1, maximum=30)
        if "logit_bias" in fields:
            fields["logit_bias"]["anyOf"][0]["propertyNames"] = {"enum": ["0", "1", "300", "639"]}
    for ids in every(description, "maximum", 2**31 - 1, "exclusiveMaximum", 2**31):
        ids.clear()
        ids.update(type="integer", minimum=0, maximum=639)
    return description


def every(node, *wanted):
    """Every schema of an id."""
    if isinstance(node, dict):
        if any(node.get(name) == value for name, value in zip(wanted[::2], wanted[1::2], strict=True)):
            yield node
        for value in list(node.values()):
            yield from every(value, *wanted)
    elif isinstance(node, list):
        for value in node:
            yield from every(value, *wanted)


def test_these_are_all_routes_of_the_description(live):
    paths = httpx.get(live.url + "/openapi.json").json()["paths"]
    assert {(method.upper(), path) for path, methods in paths.items() for method in methods} == set(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [(*route, "positive") for route in ROUTES] + [(*route, "negative") for route in ROUTES if route[0] == "POST"],
)
def test_nothing_that_is_sent_is_an_error_of_ours(method, path, mode, live):
    description = httpx.get(live.url + "/openapi.json").json()
    if mode == "positive":
        description = narrowed(description)
    operation = schemathesis.openapi.from_dict(description)[path][method]
    chosen = getattr(schemathesis.GenerationMode, mode.upper())
    statuses = set()

    @SETTINGS
    @given(case=operation.as_strategy(generation_mode=chosen))
    def ask(case):
        answer = case.call(base_url=live.url, timeout=60)
        statuses.add(answer.status_code)
        assert answer.status_code < 500, answer.text
        assert "Traceback" not in answer.text and "detail" not in answer.text[:12]
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    ask()
    assert statuses == {400} if mode == "negative" else 200 in statuses or path == "/v1/models/{model}"
    live.until(live.is_idle)
