"""uvicorn around an application: one process, one event loop, HTTP/1.1."""

from __future__ import annotations

import socket

import uvicorn

from havoc_core.errors import ConfigError
from havoc_inference.server.app import App
from havoc_inference.server.connection import timed_protocol
from havoc_inference.server.limits import Limits

GRACE_S = 30
"""For answers that are being written when the server is told to stop."""


def make_server(app: App, *, limits: Limits, grace_s: int = GRACE_S) -> uvicorn.Server:
    """A server that is not running yet: `run(sockets=[...])` or `serve(sockets=[...])`.

    Told to stop (SIGTERM, Ctrl+C, `should_exit`), it takes no new connections and lets running answers finish for
    `grace_s`; then they are cut off. A second Ctrl+C does not wait.
    """
    config = uvicorn.Config(
        app,
        http=timed_protocol(limits, app.metrics),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # it would write paths; `gate` writes routes
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_s,
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound; port 0: any free one.

    Raises:
        ConfigError: it cannot be.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is written down; with it every answer takes 40 ms more.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(
            "--host, --port",
            f"{host}:{port} cannot be listened on ({error}).",
            "Name another port, or --port 0 for any.",
        ) from None
    return listening
