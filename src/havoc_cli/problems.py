"""`havoc problems show`: look at verified problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from havoc_cli.flags import parse
from havoc_cli.subcommands import pick
from havoc_core.errors import ConfigError


@dataclass(frozen=True)
class ShowFlags:
    """Flags of `havoc problems show`."""

    count: int = 8
    """How many."""
    family: str | None = None
    """Only this family; None: all of them in turn."""
    exam: bool = False
    """From the exam instead of the training side."""


def run(argv: Sequence[str]) -> int:
    """Show problems with solution and answer."""
    return pick("problems", {"show": _show}, argv)


def _show(argv: Sequence[str]) -> int:
    flags = parse(
        ShowFlags, argv, prog="havoc problems show", description="Verified problems, with solution and answer."
    )
    if flags.count < 0:
        raise ConfigError("--count", f"{flags.count} is below 0.", "Name how many problems to show.")
    from havoc_problems.catalog import exam_problems, training_problems

    families = [flags.family] if flags.family else None
    problems = (
        exam_problems(flags.count, families=families)
        if flags.exam
        else training_problems(flags.count, families=families)
    )
    for problem in problems:
        print(f"--- {problem.family} ({problem.field}), seed {problem.seed}")
        for message in problem.messages():
            print(f"[{message['role']}] {message['content']}\n")
    return 0
