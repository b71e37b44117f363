"""API keys: read from a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from havoc_core.errors import ConfigError

_LEAST = 16
"""Characters of a key. Shorter ones are found by trying."""


class Keys:
    """Who may ask. Holds no key, only what it hashes to.

    Args:
        keys: at least one.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    def accept(self, authorization: bytes) -> bool:
        """Whether a header `Authorization: Bearer KEY` holds one of the keys.

        Every key is compared, whichever fits, and digests have one length: the time tells nothing about them.
        """
        scheme, _, key = authorization.partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        fits = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme.lower() == b"bearer" and any(fits)


def read_keys(path: Path) -> Keys:
    """Keys of a file, one a line; empty lines and those that begin with # are passed over.

    Raises:
        ConfigError: it cannot be read, holds no key, or a key is short or has spaces.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "--api-key-file", f"{path} cannot be read ({error}).", "Name a text file with one key a line."
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(
            "--api-key-file",
            f"{path} holds no key.",
            "Make one: python -c 'import secrets; print(secrets.token_hex())'.",
        )
    if any(len(key) < _LEAST or len(key.split()) > 1 or not key.isascii() for key in keys):
        raise ConfigError(
            "--api-key-file",
            f"a key in {path} is shorter than {_LEAST} characters, or has spaces or letters outside ASCII.",
            "Make one: python -c 'import secrets; print(secrets.token_hex())'.",
        )
    return Keys(keys)
