"""The chat page in a real browser, against a server whose every word the test gives away one by one."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

fastapi = pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

import uvicorn  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse, Response, StreamingResponse  # noqa: E402

from havoc_inference.server.page_routes import page_router  # noqa: E402

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no chromium with its chromedriver"),
]

ANSWER = [
    "The **variance** of a sample is ",
    "$s^2 = \\frac{1}{n-1}\\sum_{i=1}^n (x_i - \\bar{x})^2$.\n\n",
    "```python\nimport numpy\n\nnumpy.var(x, ddof=1)\n```\n\n",
    "| n | s |\n|---|--:|\n| 5 | 1.58 |\n",
]


class Stub:
    """The API of a server, as far as the page uses it, in a thread. An answer goes on when the test says so."""

    def __init__(self) -> None:
        self.reset()
        self._app = fastapi.FastAPI()
        self._app.include_router(page_router())
        self._app.get("/v1/models")(self._models)
        self._app.post("/v1/chat/completions")(self._chat)
        self._app.middleware("http")(self._gate)

    def reset(self) -> None:
        self.key: str | None = None
        self.refusals: list[tuple[int, dict[str, Any]]] = []
        self.havoc = {"step": 1200, "parameters": 1_600_000, "dummy_data": False, "demo": True, "licence": "Apache-2.0"}
        self.pieces = list(ANSWER)
        self.allowed = 10**6
        self.asked: list[dict[str, Any]] = []
        self.left = 0

    async def _gate(self, request: Request, go_on: Any) -> Response:
        is_open = request.method == "GET" and (request.url.path == "/" or request.url.path.startswith("/page/"))
        if self.key and not is_open and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "There is no API key.", "code": "invalid_api_key"}}, 401)
        answer: Response = await go_on(request)
        return answer

    async def _models(self) -> Response:
        entry = {"id": "havoc-nano", "object": "model", "max_model_len": 2048, "havoc": self.havoc}
        return JSONResponse({"object": "list", "data": [entry]})

    async def _chat(self, request: Request) -> Response:
        self.asked.append(await request.json())
        if self.refusals:
            status, error = self.refusals.pop(0)
            return JSONResponse({"error": error}, status)
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        try:
            for number, piece in enumerate(self.pieces):
                while number >= self.allowed:
                    await asyncio.sleep(0.01)  # the test has not allowed it yet
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': piece}}]})}\n\n"
            yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {}, 'finish_reason': 'stop'}]})}\n\n"
            yield f"data: {json.dumps({'choices': [], 'usage': {'prompt_tokens': 11, 'completion_tokens': 42}})}\n\n"
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.left += 1
            raise

    def serve(self) -> Iterator[str]:
        """The address, while it runs."""
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(self._app, log_level="error", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
            server.should_exit = True
            thread.join()


class Page:
    """The page under somebody's hands."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        self.address = address

    def open(self) -> None:
        self.browser.get(self.address)
        self.until(lambda: self.one("#model-name").text != "…")

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return found

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def until(self, condition: Any) -> Any:
        return WebDriverWait(self.browser, 10, poll_frequency=0.03).until(lambda _: condition())

    def type(self, *keys: str) -> None:
        """On whatever has the focus."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def ask(self, text: str) -> None:
        self.one("#question").send_keys(text, Keys.ENTER)

    def finished(self, number: int = 1) -> None:
        """Wait until so many answers stand there whole."""
        self.until(lambda: len(self.all('.answer[aria-busy="false"]')) == number and self.one("#send").is_displayed())
