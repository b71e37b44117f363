"""What somebody types into `havoc chat`: messages of several lines, and a history of lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_HISTORY_LINES = 1000
_FENCE, _QUOTES = "```", '"""'


def read_message(read_line: Callable[[str], str] = input) -> str | None:
    r"""A message; None at the end of the input.

    It has one line unless a line ends in a backslash, which goes on; begins with ```, which goes on to the next such
    line and keeps both; or begins with three quotation marks, which goes on to the next three and keeps neither.

    Args:
        read_line: shows a prompt and gives the line, or raises EOFError; `input`.
    """
    lines: list[str] = []
    fence: str | None = None
    while True:
        try:
            line = read_line("... " if lines or fence else "> ")
        except EOFError:
            return None
        if fence is None:
            fence, line = _opened(line)
        elif fence == _QUOTES and line.rstrip().endswith(_QUOTES):
            lines.append(line.rstrip().removesuffix(_QUOTES))
            return "\n".join(lines).strip("\n")
        elif fence == _FENCE and line.strip() == _FENCE:
            fence = None
        if fence is None and not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line if fence else line[:-1])


def _opened(line: str) -> tuple[str | None, str]:
    """(what has to close it, what the line says)."""
    start = line.lstrip()
    if start.startswith(_QUOTES):
        inside = start.removeprefix(_QUOTES)
        if inside.rstrip().endswith(_QUOTES):
            return None, inside.rstrip().removesuffix(_QUOTES)
        return _QUOTES, inside
    if start.startswith(_FENCE) and start.count(_FENCE) == 1:
        return _FENCE, line
    return None, line


def history_file() -> Path:
    """Where lines are kept between conversations: in the user's state folder (XDG base directory specification)."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return folder / "havoc" / "chat_history"


@contextmanager
def line_editing() -> Iterator[None]:
    """Arrow keys, search, and the lines of former conversations, where a person types at a terminal.

    Only the user may read the history. Where it cannot be kept, the conversation goes on without.
    """
    try:
        import readline  # not on every system; `input` uses it as soon as it is there
    except ImportError:
        yield
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield
        return
    path = history_file()
    try:
        readline.read_history_file(path)
    except OSError:
        pass  # the first conversation, or a folder that is not ours: a history is a convenience
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            path.chmod(0o600)
            readline.write_history_file(path)
        except OSError:
            pass
