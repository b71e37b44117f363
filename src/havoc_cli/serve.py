"""`havoc serve`: a model behind OpenAI's routes, and a page to chat with it."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from havoc_cli.flags import parse
from havoc_cli.model_folder import open_model
from havoc_core.errors import ConfigError, MissingPackageError

if TYPE_CHECKING:
    from havoc_inference.server.app import App
    from havoc_inference.server.gate import Door
    from havoc_inference.server.limits import Limits

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True)
class ServeFlags:
    """Flags of `havoc serve`."""

    checkpoint: Annotated[str, tyro.conf.Positional] = "."
    """A checkpoint, the folder of a run (its newest checkpoint), or a folder that `havoc export` wrote."""
    name: str | None = None
    """What clients call the model; None: the name of the run's folder."""
    host: str = "127.0.0.1"
    """Address to listen on. Another one than this machine's own needs --api-key-file."""
    port: int = 8000
    """0: any free one."""
    api_key_file: str | None = None
    """Text file with one key a line; clients send one of them."""
    cors_origin: tuple[str, ...] = ()
    """Web origins, such as https://chat.example.org, whose pages may ask."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to compute."""
    int8: bool = False
    """On a CPU: read the matrices as int8, half the bytes of bfloat16; its numbers are a little off."""
    max_cached_tokens: int = 32_768
    """Tokens of all answers together that are kept in memory."""
    max_running: int = 64
    """Answers that are written at once."""
    max_waiting: int = 256
    """Answers that may wait; one more is refused with 429."""
    max_body_bytes: int = 4 * 2**20
    """Of a request."""
    max_prompt_tokens: int | None = None
    """In one prompt; None: what the context holds."""
    max_new_tokens: int | None = None
    """In one answer; None: what is left of the context."""
    request_timeout_s: float = 600.0
    """For one answer."""
    grace_s: int = 30
    """For answers that are being written when the server is stopped."""

    def limits(self) -> Limits:
        """These flags, checked."""
        from havoc_inference.server.limits import Limits

        return Limits(
            max_body_bytes=self.max_body_bytes,
            max_prompt_tokens=self.max_prompt_tokens,
            max_new_tokens=self.max_new_tokens,
            request_timeout_s=self.request_timeout_s,
        )


def run(argv: Sequence[str]) -> int:
    """Serve until Ctrl+C or SIGTERM; answers that are being written are finished."""
    flags = parse(ServeFlags, argv, prog="havoc serve", description="A model behind OpenAI's routes.")
    _require_packages()
    from havoc_core import log
    from havoc_inference.server.listening import listen, make_server

    limits, door = flags.limits(), _door(flags)
    with listen(flags.host, flags.port) as socket:  # a port that is taken is said before gigabytes are read
        log.to_screen()
        app = open_app(flags, limits=limits, door=door)
        server = make_server(app, limits=limits, grace_s=flags.grace_s)
        host = f"[{flags.host}]" if ":" in flags.host else flags.host
        print(
            f"'{app.name}' is served at http://{host}:{socket.getsockname()[1]} (the API: /v1). Ctrl+C ends.",
            flush=True,
        )
        server.run(sockets=[socket])
    return 0


def open_app(flags: ServeFlags, *, limits: Limits, door: Door) -> App:
    """Load the model that the flags mean, and put the routes around it."""
    from havoc_inference.engine import Engine, EngineOptions
    from havoc_inference.server.app import App
    from havoc_inference.server.metrics import Metrics
    from havoc_inference.server.serving import Serving
    from havoc_inference.service import EngineService

    opened = open_model(Path(flags.checkpoint), device=flags.device)
    options = EngineOptions(max_cached_tokens=flags.max_cached_tokens, max_running=flags.max_running, int8=flags.int8)
    engine = Engine(opened.loaded, options)
    service = EngineService(engine, max_waiting=flags.max_waiting)
    serving = Serving(engine, service, flags.name or opened.name, int(time.time()), limits, Metrics(service))
    return App(serving, door=door, origins=flags.cors_origin, grace_s=flags.grace_s)


def _door(flags: ServeFlags) -> Door:
    """Who comes in.

    Raises:
        ConfigError: others could reach a server without keys; a key file is wrong.
    """
    from havoc_inference.server.gate import Door
    from havoc_inference.server.keys import read_keys

    if flags.api_key_file is not None:
        return Door(keys=read_keys(Path(flags.api_key_file)))
    if not _is_local(flags.host):
        raise ConfigError(
            "--host",
            f"on {flags.host} anybody who reaches this machine could use the model.",
            "Give it keys (--api-key-file FILE), or leave --host out and reach it through SSH.",
        )
    return Door(hosts=_LOCAL_NAMES | {flags.host})


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_packages() -> None:
    """Whether what the server stands on is installed.

    Raises:
        MissingPackageError: it is not.
    """
    try:
        import fastapi
        import prometheus_client
        import uvicorn
    except ImportError as error:
        raise MissingPackageError(
            "havoc serve",
            f"it needs a package that cannot be imported ({error}).",
            "Install it: pip install 'havoc[serve]'.",
        ) from None
    del fastapi, prometheus_client, uvicorn
