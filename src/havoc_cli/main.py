"""`havoc COMMAND`: a command is a file beside this one, imported only when it is called."""

from __future__ import annotations

import difflib
import errno
import importlib
import keyword
import sys
from collections.abc import Sequence

from havoc_core.errors import HavocError

COMMANDS = {
    "run": "the whole line: text, tokenizer, training, evaluation, report; goes on where it was stopped",
    "plan": "what a run will need, before it starts: memory, time, money; on this machine or on any card",
    "train": "train a model; makes tokenizer and store when they are missing",
    "data": "card, build, look, replay, sample, export, import: what is in a folder; tokens of it; what a step learnt from",
    "tokenizer": "train, report: learn a vocabulary from your text, compare what it costs",
    "evaluate": "a checkpoint -> scores with 95 % intervals",
    "generate": "continue a text",
    "chat": "talk to a checkpoint in the terminal",
    "export": "a checkpoint for transformers, vLLM, llama.cpp or Ollama, loaded back and compared",
    "import": "a Hugging Face folder -> a checkpoint",
    "serve": "a model behind OpenAI's routes, and a page to chat with it",
    "report": "one self-contained HTML page about a run",
    "checkpoint": "list, verify: what was saved, and whether it is whole",
    "config": "show, check, schema: settings with the origin of each",
    "problems": "show: verified problems, with solution and answer",
}


_DISK_IS_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Of the disk, of the user's share of it, of one file. May happen wherever anything is written, and is no bug."""


def entry() -> None:
    """What the `havoc` command calls."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str], *, default_config: str | None = None) -> int:
    """Run a command and give its exit code.

    Args:
        argv: the command and its arguments.
        default_config: YAML used by `train` when there is no --config.
    """
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(_help())
        return 0 if argv else 2
    name, *arguments = argv
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else "`havoc --help` lists them."
        print(f"ConfigError  command: there is no '{name}'. {hint}", file=sys.stderr)
        return 2
    try:
        command = importlib.import_module(module_of(name))
        code: int = command.run(arguments, default_config) if name == "train" else command.run(arguments)
    except HavocError as error:
        print(f"{type(error).__name__}  {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has left; Python would complain while exiting
        return 1
    except OSError as error:
        if error.errno not in _DISK_IS_FULL:
            raise
        place = error.filename or "the disk"
        print(f"{place}: cannot be written ({error.strerror}). Free some disk and call it again.", file=sys.stderr)
        return 1
    return code


def module_of(name: str) -> str:
    """The module of a command: its own name, with an underscore behind a word of Python's."""
    return f"havoc_cli.{name}_" if keyword.iskeyword(name) else f"havoc_cli.{name}"


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    rows = "\n".join(f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items())
    return (
        "usage: havoc COMMAND [ARGUMENTS]\n\n"
        "A folder of text in, a specialist language model out.\n\n"
        f"{rows}\n\n"
        "havoc COMMAND --help explains a command. Begin with: havoc run --config configs/training/first_run.yaml"
    )
