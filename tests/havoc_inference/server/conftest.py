"""A real engine behind real HTTP: a server in a thread on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from havoc_inference.engine import Engine
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
KEY = "a-key-of-32-characters-for-tests"
DEADLINE_S = 20.0


@dataclass(frozen=True)
class Live:
    """A server that listens."""

    url: str
    port: int
    service: EngineService
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
        now = self.service.statistics()
        return (now.running, now.waiting, now.pages_used) == (0, 0, 0)


def build_app(loaded: LoadedModel, *, limits: Limits | None = None, door: Door | None = None, **more: Any) -> App:
    """The application around a new engine."""
    max_waiting = more.pop("max_waiting", 256)
    service = EngineService(Engine(loaded), max_waiting=max_waiting)
    serving = Serving(service.engine, service, NAME, 1_700_000_000, limits or Limits(), Metrics(service))
    app = App(serving, door=door or Door(), **more)
    app.serving = serving  # type: ignore[attr-defined]
    return app


@contextlib.contextmanager
def live_server(loaded: LoadedModel, *, grace_s: int = 5, **more: Any) -> Iterator[Live]:
    """A server while the block runs; it is told to stop at the end and waited for."""
    app = build_app(loaded, **more)
    serving: Serving = app.serving  # type: ignore[attr-defined]
    server = make_server(app, limits=serving.limits, grace_s=grace_s)
    socket = listen("127.0.0.1", 0)
    port = socket.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    live = Live(f"http://127.0.0.1:{port}", port, serving.service, serving, server)
    try:
        live.until(lambda: server.started)
        yield live
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def live(loaded: LoadedModel) -> Iterator[Live]:
    """A server without keys, for everybody."""
    with live_server(loaded) as running:
        yield running


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    """A plain client of it."""
    with httpx.Client(base_url=live.url, timeout=DEADLINE_S) as plain:
        yield plain


@pytest.fixture(scope="session")
def guarded(loaded: LoadedModel) -> Iterator[Live]:
    """A server with a key."""
    with live_server(loaded, door=Door(keys=Keys((KEY, "another-key-of-32-characters-yes")))) as running:
        yield running
