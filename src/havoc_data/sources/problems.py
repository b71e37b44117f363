"""Verified problems with worked solutions, as dialogs. None of their statements occurs in the exam."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from havoc_core.config import Positive, Section
from havoc_core.errors import ConfigError
from havoc_data.document import Document, Rejected
from havoc_data.sources._files import refuse_path
from havoc_problems.catalog import FAMILIES, family_names, family_version, training_problems
from havoc_problems.splits import EXAM_SHARE


class Options(Section):
    """Settings of this kind of source."""

    count: Positive = 20000
    """How many problems, the families taking turns."""
    families: tuple[str, ...] = ()
    """Files in havoc_problems/families/; none named: all."""


def build(path: str | None, options: Options) -> Problems:
    """Problems to learn from; the same for the same options on every machine.

    Raises:
        ConfigError: there is a path, or no family of a given name.
    """
    refuse_path("problems", path)
    known = family_names()
    for name in options.families:
        if "." not in name and name not in known:
            FAMILIES.module(name)  # raises, with the nearest name
    repeated = next((name for name in options.families if options.families.count(name) > 1), None)
    if repeated:
        raise ConfigError(
            "data.sources.options.families",
            f"'{repeated}' is named twice, and would repeat itself.",
            "Name each family once.",
        )
    return Problems(options.count, options.families or tuple(known))


@dataclass(frozen=True)
class Problems:
    """Problems as dialogs. A `Source`."""

    count: int
    """How many."""
    families: tuple[str, ...]
    """Their names, in the order of their turns."""

    def documents(self) -> Iterator[Document | Rejected]:
        """One dialog a problem; the origin is "problems/<family>", the ordinal the seed the family made it from."""
        for problem in training_problems(self.count, families=self.families):
            messages = tuple((message["role"], message["content"]) for message in problem.messages())
            yield Document(f"problems/{problem.family}", messages=messages, ordinal=problem.seed)

    def fingerprint(self) -> str:
        """Hex digest of the count, the families with their versions, and the share kept for the exam."""
        versions = [f"{name} {family_version(name)}" for name in self.families]
        return hashlib.blake2b(f"problems 1 {self.count} {versions} {EXAM_SHARE}".encode(), digest_size=16).hexdigest()
