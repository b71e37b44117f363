"""`havoc chat`: talk to a checkpoint in the terminal."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from havoc_cli.chat_input import line_editing, read_message
from havoc_cli.flags import parse
from havoc_cli.generate import SamplingFlags, open_engine
from havoc_core.costs import num_parameters
from havoc_core.errors import ConfigError

if TYPE_CHECKING:
    from havoc_inference.chat import Chat

_SMALL = 1_000_000_000
_COMMAND = re.compile(r"/([a-z]+)(?:\s+(.*))?", re.DOTALL)
_HELP = """\
/retry         another answer to the last question
/undo          take the last question and its answer back
/new           forget the conversation
/system TEXT   what the model is told before the conversation; without TEXT: nothing
/save FILE     write the conversation: .jsonl as text to train on, anything else as Markdown
/quit          end; so does Ctrl+D
A line ending in \\ goes on. ``` begins a block of code and ``` ends it; \"\"\" begins and ends a pasted text.
Ctrl+C stops an answer."""


@dataclass(frozen=True)
class ChatFlags(SamplingFlags):
    """Flags of `havoc chat`."""

    system: str | None = None
    """A message that stands before the conversation."""


def run(argv: Sequence[str]) -> int:
    """Read a message, answer it; an empty one is skipped, /help shows what else can be typed, /quit or Ctrl+D ends."""
    flags = parse(ChatFlags, argv, prog="havoc chat", description="Talk to a checkpoint in the terminal.")
    (engine, loaded), options = open_engine(flags), flags.options()
    from havoc_inference.chat import Chat

    chat = Chat(engine, options=options, system=flags.system)
    parameters = num_parameters(loaded.config)
    print(f"{parameters / 1e6:.1f} M parameters, step {loaded.step}. /help shows what can be typed; /quit ends.")
    if parameters < _SMALL:
        print("A model of this size answers in form, not in fact: check every number it gives.")
    with line_editing():
        while (message := read_message()) is not None:
            command = _COMMAND.fullmatch(message.strip())
            if command and command[1] == "quit":
                break
            if not message.strip():
                continue
            try:
                if command:
                    _obey(command[1], (command[2] or "").strip(), chat)
                else:
                    _answer(chat.say(message))
            except ConfigError as error:  # nothing was said; the conversation is as it was
                print(error)
    return 0


def _obey(command: str, argument: str, chat: Chat) -> None:
    """Do what a line beginning with / asks for.

    Raises:
        ConfigError: it cannot be done.
    """
    match command:
        case "help":
            print(_HELP)
        case "new":
            chat.forget()
        case "undo":
            question = chat.undo()
            print("There is nothing to take back." if question is None else f"Taken back: {question}")
        case "retry":
            question = chat.undo()
            if question is None:
                print("There is no question yet.")
            else:
                _answer(chat.say(question))
        case "system":
            chat.instruct(argument or None)
        case "save":
            _save(chat, argument)
        case _:
            print(f"There is no /{command}; /help shows what there is.")


def _save(chat: Chat, name: str) -> None:
    if not name:
        raise ConfigError("/save", "it names no file.", "Write /save FILE.")
    if not chat.transcript:
        raise ConfigError("/save", "nothing was said yet.", "Ask something first.")
    path = Path(name).expanduser()
    if path.suffix == ".jsonl":
        messages = [{"role": role, "content": content} for role, content in chat.transcript]
        text = json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
    else:
        text = "\n\n".join(f"**{role}**\n\n{content}" for role, content in chat.transcript) + "\n"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError("/save", f"{path} was not written: {error.strerror}.", "Name another file.") from None
    print(f"{len(chat.transcript)} messages are in {path}.")


def _answer(pieces: Iterator[str]) -> None:
    try:
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stdout.write(" …")  # the answer is cut off, the conversation goes on
    sys.stdout.write("\n")
