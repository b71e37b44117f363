"""Connections that say nothing are closed.

uvicorn waits for the head of a request as long as the other side likes: a client that opens a connection and sends half a
request, or one byte a minute, would hold it for ever. Bodies are timed by `gate`, answers by `event_stream`.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from havoc_inference.server.errors import ApiError, to_json
from havoc_inference.server.limits import Limits
from havoc_inference.server.metrics import Metrics


def timed_protocol(limits: Limits, metrics: Metrics) -> type[H11Protocol]:
    """uvicorn's protocol with a clock: for `uvicorn.Config(http=...)`.

    Args:
        limits: `head_timeout_s` and `max_connections`; `send_timeout_s` for the last bytes of an answer.
        metrics: told of connections that were closed.
    """

    class TimedProtocol(H11Protocol):
        """One connection."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """The clock starts."""
            super().connection_made(transport)
            if len(self.connections) > limits.max_connections:
                self._close()
            else:
                self._start()

        def data_received(self, data: bytes) -> None:
            """It stops when a request is there, and starts again with the first byte that belongs to none."""
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            else:
                self._start()

        def connection_lost(self, exc: Exception | None) -> None:
            """It stops."""
            self._stop()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """What is no HTTP is answered in the shape of all other errors."""
            self.transport.write(b"".join(self.conn.send(event) or b"" for event in _bad_request()))
            self.transport.close()

        def timeout_keep_alive_handler(self) -> None:
            """An idle connection is closed; one whose reader does not take the last bytes is cut."""
            super().timeout_keep_alive_handler()
            self.loop.call_later(limits.send_timeout_s, self.transport.abort)

        def _start(self) -> None:
            if self._clock is None:
                self._clock = self.loop.call_later(limits.head_timeout_s, self._close)

        def _stop(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _close(self) -> None:
            if not self.transport.is_closing():
                metrics.slow_heads.inc()
                self.transport.abort()

    return TimedProtocol


def _bad_request() -> list[h11.Event]:
    body = to_json(ApiError(400, "This is no HTTP/1.1 request that can be read.").body()).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    head = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
    return [head, h11.Data(data=body), h11.EndOfMessage()]
