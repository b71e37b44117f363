"""The page's files and headers; Markdown through the server."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from havoc_inference.server.page_routes import MAX_RENDERED_CHARACTERS, page_router


@pytest.fixture
def client():
    app = FastAPI()
    app.include_router(page_router())
    return TestClient(app)


def test_the_page_and_everything_it_names_is_there(client):
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    assert set(named) == {"page/chat.css", "page/chat.js", "page/icon.svg"}
    for path in named:
        assert client.get(f"/{path}").status_code == 200


def test_other_files_are_not_there(client):
    for path in ("/page/index.htm", "/page/..%2fapp.py", "/page/%2e%2e/app.py", "/page/"):
        assert client.get(path).status_code in (404, 307)


@pytest.mark.parametrize("path", ["/", "/page/chat.js", "/page/chat.css", "/page/icon.svg"])
def test_a_browser_is_told_to_load_nothing_from_elsewhere(client, path):
    headers = client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "connect-src": "'self'",
        "img-src": "'self' data:", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }  # fmt: skip
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_page_is_small_and_names_no_other_host(client):
    parts = {path: client.get(path).text for path in ("/", "/page/chat.js", "/page/chat.css")}
    assert sum(map(len, parts.values())) < 36_000
    for text in parts.values():
        assert "http" not in text.replace("without https", "")
        assert " style=" not in text and " onclick=" not in text  # the policy forbids both


def test_markdown_comes_back_as_html(client):
    reply = client.post("/page/render", json={"text": "**a** $x$"})
    assert reply.json() == {"html": '<p><strong>a</strong> <math display="inline"><mrow><mi>x</mi></mrow></math></p>\n'}
    assert "content-security-policy" in reply.headers


@pytest.mark.parametrize(
    "body", [{"text": "x" * (MAX_RENDERED_CHARACTERS + 1)}, {"text": 1}, {}, {"text": "a", "b": 1}]
)
def test_what_is_no_text_or_too_long_is_refused(client, body):
    assert client.post("/page/render", json=body).status_code == 422


def test_the_description_of_the_api_does_not_hold_the_page(client):
    assert client.get("/openapi.json").json()["paths"] == {}
