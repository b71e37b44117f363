"""Server-sent events: an answer as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from havoc_inference.server.errors import ClientLeft, shutting_down, to_json, translated
from havoc_inference.server.failures import log_failure
from havoc_inference.server.generation import while_connected
from havoc_inference.server.limits import Limits
from havoc_inference.server.protocol import Json

_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would keep the events until the answer is whole
}


class EventStream(Response):
    """Sends JSON objects as events and `[DONE]` at the end.

    When something fails in the middle, an event with `error` says so, for a socket that closes says nothing. When the
    client leaves, the events are closed at once.

    Args:
        events: the objects.
        close: called when the stream is over, however it ended, even if no event was ever asked for.
        limits: `send_timeout_s` and `request_timeout_s`.
    """

    def __init__(self, events: AsyncGenerator[Json, None], *, close: Callable[[], None], limits: Limits) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]  # of the empty body
        self._events = events
        self._close = close
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # The writer keeps the time itself: it can still say that it is over.
            await while_connected(receive, self._write(send), timeout_s=2 * self._limits.request_timeout_s)
        finally:
            self._close()

    async def _write(self, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + self._limits.request_timeout_s
        try:
            while True:
                try:
                    async with asyncio.timeout_at(deadline):
                        event = await anext(self._events)
                except StopAsyncIteration:
                    break
                await self._send(send, to_json(event))
        except ClientLeft:
            raise
        except asyncio.CancelledError:
            # The server's patience at its end is over; the stream still ends as a stream does.
            await self._send(send, to_json(shutting_down().body()))
            await self._send(send, "[DONE]", more=False)
            raise
        except Exception as error:
            log_failure(error)
            await self._send(send, to_json(translated(error).body()))
        finally:
            await self._events.aclose()
        await self._send(send, "[DONE]", more=False)

    async def _send(self, send: Send, data: str, *, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._limits.send_timeout_s):
                await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": more})
        except TimeoutError:  # nobody reads
            raise ClientLeft from None


def now() -> int:
    """Seconds since 1970, for the field `created`."""
    return int(time.time())
