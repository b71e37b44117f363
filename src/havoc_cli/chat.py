"""`havoc chat`: talk to a checkpoint in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from havoc_cli.flags import parse
from havoc_cli.generate import SamplingFlags, open_engine
from havoc_core.costs import num_parameters

_SMALL = 1_000_000_000


@dataclass(frozen=True)
class ChatFlags(SamplingFlags):
    """Flags of `havoc chat`."""

    system: str | None = None
    """A message that stands before the conversation."""


def run(argv: Sequence[str]) -> int:
    """Read a line, answer it; an empty line is skipped, /new forgets, /quit or Ctrl+D ends."""
    flags = parse(ChatFlags, argv, prog="havoc chat", description="Talk to a checkpoint in the terminal.")
    (engine, loaded), options = open_engine(flags), flags.options()
    from havoc_inference.chat import Chat

    chat = Chat(engine, options=options, system=flags.system)
    parameters = num_parameters(loaded.config)
    print(
        f"{parameters / 1e6:.1f} M parameters, step {loaded.step}. /new forgets, /quit ends; a line ending in \\ goes on."
    )
    if parameters < _SMALL:
        print("A model of this size answers in form, not in fact: check every number it gives.")
    while True:
        question = _read()
        if question is None or question.strip() == "/quit":
            return 0
        if question.strip() == "/new":
            chat = Chat(engine, options=options, system=flags.system)
        elif question.strip():
            _answer(chat.say(question))


def _read() -> str | None:
    """A question, of several lines if all but the last end in a backslash; None at the end of the input."""
    lines: list[str] = []
    while True:
        try:
            line = input("... " if lines else "> ")
        except EOFError:
            return None
        if not line.endswith("\\"):
            return "\n".join([*lines, line])
        lines.append(line[:-1])


def _answer(pieces: Iterator[str]) -> None:
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write(" …")  # the answer is cut off, the conversation goes on
    sys.stdout.write("\n")
