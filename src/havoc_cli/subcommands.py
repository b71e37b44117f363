"""Commands with a second word: `havoc data look`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

from havoc_core.errors import ConfigError


def pick(command: str, choices: Mapping[str, Callable[[Sequence[str]], int]], argv: Sequence[str]) -> int:
    """Call the function that the second word names.

    Raises:
        ConfigError: the word is none of the choices.
    """
    names = " | ".join(choices)
    if not argv or argv[0] in {"-h", "--help"}:
        print(f"usage: havoc {command} {names}\n\nhavoc {command} NAME --help explains one.")
        return 0 if argv else 2
    name, *rest = argv
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=1)
        raise ConfigError(
            f"havoc {command}",
            f"there is no '{name}'.",
            f"Did you mean '{near[0]}'?" if near else f"There are: {names}.",
        )
    return choices[name](rest)
