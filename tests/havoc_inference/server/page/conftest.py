"""A real browser, and a server whose every word the test gives away one by one."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import fastapi
import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from havoc_inference.server.page_routes import page_router

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

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
        self._moved = asyncio.Event()
        self._app = fastapi.FastAPI()
        self._app.include_router(page_router())
        self._app.get("/v1/models")(self._models)
        self._app.post("/v1/chat/completions")(self._chat)

    def reset(self) -> None:
        self.key: str | None = None
        self.refusals: list[tuple[int, dict[str, Any]]] = []
        self.havoc = {"step": 1200, "parameters": 1_600_000, "dummy_data": False, "demo": True, "licence": "Apache-2.0"}
        self.pieces = list(ANSWER)
        self.breaks = False
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        self._allowed = 10**6

    def allow(self, pieces: int) -> None:
        """Answers go on to so many pieces, and wait there."""
        self._allowed = pieces
        self._loop.call_soon_threadsafe(self._moved.set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self._is_shut(Request(scope)):
            refusal = {"error": {"message": "There is no API key.", "code": "invalid_api_key"}}
            await JSONResponse(refusal, 401)(scope, receive, send)
        else:
            self._loop = asyncio.get_running_loop()
            await self._app(scope, receive, send)

    def _is_shut(self, request: Request) -> bool:
        is_page = request.method == "GET" and not request.url.path.startswith("/v1/")
        return not is_page and self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}"

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
                while number >= self._allowed:
                    self._moved.clear()
                    await self._moved.wait()
                yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': piece}}]})}\n\n"
            if self.breaks:
                return
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
            listening.listen(64)
            server = uvicorn.Server(uvicorn.Config(self, log_level="error", ws="none", timeout_graceful_shutdown=1))
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

    def shown(self) -> str:
        """The last answer as it is now."""
        text: str = self.all(".answer")[-1].text
        return text

    def tool(self, name: str) -> Any:
        """The first button below a message with this label, moved out from under the bar."""
        button = self.one(f'.tools button[aria-label^="{name}"]')
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        return button


@pytest.fixture(scope="module")
def stub() -> Stub:
    return Stub()


@pytest.fixture(scope="module")
def address(stub: Stub) -> Iterator[str]:
    yield from stub.serve()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not (BROWSER and DRIVER):
        pytest.skip("there is no chromium with its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def visit(browser: Any) -> Callable[[str], Page]:
    """Go to the page of a server, as somebody who was never there."""

    def go(address: str) -> Page:
        page = Page(browser, address)
        page.browser.get(address)
        page.run("localStorage.clear(); sessionStorage.clear()")
        page.browser.get(address)
        return page

    return go


@pytest.fixture
def page(stub: Stub, address: str, browser: Any, visit: Callable[[str], Page]) -> Iterator[Page]:
    """The page as somebody sees it first. Afterwards: nothing was wrong in its console, nothing came from elsewhere."""
    stub.reset()
    page = visit(address)
    page.until(lambda: page.one("#model-name").text != "…")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    yield page
    stub.allow(10**6)
    said = [entry["message"] for entry in browser.get_log("browser")]
    assert [message for message in said if "the server responded with a status of" not in message] == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(address)] == []
