"""What every request passes before it reaches a route: key, host, size, time; and what is written about it."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from havoc_core.log import LOGGER
from havoc_inference.server.errors import ApiError, ClientLeft, busy, shutting_down, translated
from havoc_inference.server.failures import log_failure
from havoc_inference.server.keys import Keys
from havoc_inference.server.limits import Limits
from havoc_inference.server.metrics import Metrics

_OPEN = ("/health",)
_OPEN_TO_GET = ("/", "/favicon.ico")
_OPEN_FOLDER = "/page/"
"""The chat page is files without content; it asks for the key itself."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\[\]]+)(?::\d{1,5})?")
_DRAINED = 4
"""Times the limit of a body that are read and thrown away, so that the client hears why it is refused."""


@dataclass(frozen=True)
class Door:
    """Who comes in.

    None of `keys`: everybody. None of `hosts`: by whatever name the server is called. With a list of names, a page from
    elsewhere whose name was made to point to this machine (DNS rebinding) cannot ask in its visitor's name.
    """

    keys: Keys | None = None
    hosts: frozenset[str] | None = None


class Gate:
    """Around the whole application (pure ASGI).

    Args:
        app: what answers.
        door: who comes in.
        limits: of size, time and number.
        metrics: what is counted.
    """

    def __init__(self, app: ASGIApp, *, door: Door, limits: Limits, metrics: Metrics) -> None:
        self._app = app
        self._door = door
        self._limits = limits
        self._metrics = metrics
        self._at_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        started = time.perf_counter()
        answer = _Watched(send, request_id=_request_id(scope))
        self._at_work += 1
        self._metrics.at_work.inc()
        try:
            await self._pass(scope, receive, answer)
        except ClientLeft:
            answer.status = answer.status or 499
        except asyncio.CancelledError:
            # The server's patience at its end is over: see `listening`.
            await answer.refuse(shutting_down(), scope, receive)
        except Exception as error:
            log_failure(error)
            await answer.refuse(translated(error), scope, receive)
        finally:
            self._at_work -= 1
            self._metrics.at_work.dec()
            self._note(scope, answer, time.perf_counter() - started)

    async def _pass(self, scope: Scope, receive: Receive, answer: _Watched) -> None:
        self._require_host(scope)
        self._require_key(scope)
        if self._at_work > self._limits.max_requests and scope["path"] not in _OPEN:
            raise busy(1)
        body = await self._read(scope, receive)
        if body:
            _require_json(scope)
        await self._app(scope, _replay(body, receive), answer.send)

    def _require_host(self, scope: Scope) -> None:
        if self._door.hosts is None:
            return
        host = _header(scope, b"host").decode("latin-1").lower()
        name = _HOST.fullmatch(host)
        if name is None or name[1] not in self._door.hosts:
            raise ApiError(
                403,
                "This server without keys answers only when it is called localhost. Start it with --api-key-file.",
                code="unknown_host",
            )

    def _require_key(self, scope: Scope) -> None:
        path, method = scope["path"], scope["method"]
        reads = method in ("GET", "HEAD")
        if path in _OPEN or (reads and (path in _OPEN_TO_GET or _is_page(path))) or self._door.keys is None:
            return
        given = _header(scope, b"authorization")
        if not self._door.keys.accept(given):
            found = "The API key is wrong." if given else "There is no API key."
            raise ApiError(
                401,
                f"{found} Send a header 'Authorization: Bearer KEY' with one of the server's keys.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body; routes begin when it is here."""
        limit = self._limits.max_body_bytes
        parts: list[bytes] = []
        size = 0
        said = _header(scope, b"content-length")
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                more = not (said.isdigit() and int(said[:20]) > _DRAINED * limit)
                size = 0 if more else limit + 1
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientLeft
                    size += len(message.get("body", b""))
                    if size <= limit:
                        parts.append(message.get("body", b""))
                    else:
                        parts.clear()
                    more = message.get("more_body", False) and size <= _DRAINED * limit
        except TimeoutError:
            raise ApiError(
                408,
                f"The body was not here after {self._limits.body_timeout_s:g} s.",
                code="timeout",
                headers={"Connection": "close"},
            ) from None
        if size > limit:
            raise ApiError(
                413,
                f"The body is larger than {limit:,} bytes, which is all that this server takes.",
                code="request_too_large",
                headers={"Connection": "close"},
            )
        return b"".join(parts)

    def _note(self, scope: Scope, answer: _Watched, seconds: float) -> None:
        # The route's pattern, never the path that was asked for: a path may hold anything.
        route = getattr(scope.get("route"), "path", "other")
        status = answer.status or 499
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        LOGGER.info("%s %s %d %.0f ms %s", _method(scope), route, status, 1000 * seconds, answer.request_id)


class _Watched:
    """The sending side of a request: its id goes out with the answer, its status is remembered."""

    def __init__(self, send: Send, *, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-request-id", self.request_id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)

    async def refuse(self, error: ApiError, scope: Scope, receive: Receive) -> None:
        """Answer with an error, if nothing was answered yet."""
        if self.status is None:
            await error.response()(scope, receive, self.send)


def _replay(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _require_json(scope: Scope) -> None:
    """A page elsewhere can send any other kind, or none, without the browser asking whether it may."""
    kind = _header(scope, b"content-type").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise ApiError(400, "The body is not said to be JSON. Send it with the header Content-Type: application/json.")


def _header(scope: Scope, name: bytes) -> bytes:
    found = [value for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else b""  # two keys are none: nobody knows which is meant


def _request_id(scope: Scope) -> str:
    """The client's own, if it is one that can be written to a log; else a new one."""
    given = _header(scope, b"x-request-id")
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method.isascii() and method.isalpha() and len(method) < 10 else "?"


def _is_page(path: str) -> bool:
    return path.startswith(_OPEN_FOLDER) and ".." not in path
