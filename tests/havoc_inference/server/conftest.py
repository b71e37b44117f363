"""A real engine behind real HTTP: a server in a thread on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from havoc_inference.engine import Engine, EngineOptions
from havoc_inference.load import LoadedModel
from havoc_inference.server.app import App
from havoc_inference.server.gate import Door
from havoc_inference.server.keys import Keys
from havoc_inference.server.limits import Limits
from havoc_inference.server.listening import listen, make_server
from havoc_inference.server.metrics import Metrics
from havoc_inference.server.serving import Serving
from havoc_inference.service import EngineService

NAME = "tiny"
KEYS = ("a-key-of-32-characters-for-tests", "another-key-of-32-characters-yes")
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Live:
    """A server that listens."""

    url: str
    port: int
    serving: Serving
    server: uvicorn.Server

    def until(self, holds: Callable[[], bool], *, within_s: float = DEADLINE_S) -> float:
        """Seconds until something holds; fails when it does not in time."""
        started = time.perf_counter()
        while not holds():
            assert time.perf_counter() - started < within_s, "it did not come about in time"
            threading.Event().wait(0.002)
        return time.perf_counter() - started

    def is_idle(self) -> bool:
        """Whether nothing runs, waits or owns a page."""
        now = self.serving.service.statistics()
        return (now.running, now.waiting, now.pages_used) == (0, 0, 0)

    @contextlib.contextmanager
    def slow_motion(self, step_s: float) -> Iterator[None]:
        """Every step of the engine takes so much longer, so that an answer can be met while it is written."""
        scheduler = self.serving.engine.scheduler
        quick, over = scheduler.step, threading.Event()

        def step() -> Any:
            over.wait(step_s)
            return quick()

        scheduler.step = step  # type: ignore[method-assign]
        try:
            yield
        finally:
            over.set()
            scheduler.step = quick  # type: ignore[method-assign]


def make_serving(
    loaded: LoadedModel, *, limits: Limits | None = None, max_running: int = 64, max_waiting: int = 256
) -> Serving:
    service = EngineService(Engine(loaded, EngineOptions(max_running=max_running)), max_waiting=max_waiting)
    return Serving(service.engine, service, NAME, 1_700_000_000, limits or Limits(), Metrics(service))


@contextlib.contextmanager
def live_server(
    serving: Serving, *, door: Door | None = None, origins: tuple[str, ...] = (), grace_s: int = 5
) -> Iterator[Live]:
    app = App(serving, door=door or Door(), origins=origins, grace_s=grace_s)
    server = make_server(app, limits=serving.limits, grace_s=grace_s)
    socket = listen("127.0.0.1", 0)
    port = socket.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    live = Live(f"http://127.0.0.1:{port}", port, serving, server)
    try:
        live.until(lambda: server.started)
        yield live
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture
def serve(loaded: LoadedModel) -> Callable[..., AbstractContextManager[Live]]:
    """A server of a test's own while a block runs; then it is told to stop and waited for."""

    def make(*, door: Door | None = None, origins: tuple[str, ...] = (), grace_s: int = 5, **more: Any) -> Any:
        return live_server(make_serving(loaded, **more), door=door, origins=origins, grace_s=grace_s)

    return make


@pytest.fixture(scope="session")
def live(loaded: LoadedModel) -> Iterator[Live]:
    """A server for everybody."""
    with live_server(make_serving(loaded)) as running:
        yield running


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=live.url, timeout=DEADLINE_S) as plain:
        yield plain


@pytest.fixture(scope="session")
def guarded(loaded: LoadedModel) -> Iterator[Live]:
    """A server with keys."""
    with live_server(make_serving(loaded), door=Door(keys=Keys(KEYS))) as running:
        yield running


@pytest.fixture(scope="session")
def keys() -> tuple[str, ...]:
    """Those of that server."""
    return KEYS
