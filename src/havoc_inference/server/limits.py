"""How much one client may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, fields

from havoc_core.errors import ConfigError


@dataclass(frozen=True)
class Limits:
    """Bounds of the server. What is over one is refused with a message that names it.

    Raises:
        ConfigError: a bound is not above zero; names it.
    """

    max_body_bytes: int = 4 * 2**20
    """Of a request. A prompt of ids takes about six bytes a token."""
    max_prompt_tokens: int | None = None
    """In one prompt; None: what the model's context holds."""
    max_new_tokens: int | None = None
    """In one answer; None: what is left of the context."""
    max_choices: int = 128
    """Answers to one request: prompts times `n`."""
    max_rows: int = 256
    """Texts to embed in one request."""
    max_requests: int = 512
    """At work at once, waiting ones included; one more is answered with 429."""
    max_connections: int = 1024
    """Open at once; one more is closed without an answer."""
    head_timeout_s: float = 10.0
    """From the opening of a connection, or from the first byte of a later request, to the end of the request's head."""
    body_timeout_s: float = 20.0
    """From the end of the head to the end of the body."""
    send_timeout_s: float = 30.0
    """For one event of a stream to be taken by its reader."""
    request_timeout_s: float = 600.0
    """For a whole answer."""

    def __post_init__(self) -> None:
        """Check every value."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ConfigError(field.name, f"{value} is no limit to work with.", "Use a number above 0.")
