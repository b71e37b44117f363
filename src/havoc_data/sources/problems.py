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
from havoc_problems.problem import Problem
from havoc_problems.splits import EXAM_SHARE

_LICENCE = "Apache-2.0"
"""Made by HAVOC, under its own licence."""


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

    def parts(self) -> tuple[ProblemPart, ...]:
        """A part for each family: where the families take turns, one turn cannot be made without those before it."""
        rounds, rest = divmod(self.count, len(self.families))
        counts = [rounds + (number < rest) for number in range(len(self.families))]
        return tuple(ProblemPart(name, count) for name, count in zip(self.families, counts, strict=True) if count)

    def rejected(self) -> tuple[Rejected, ...]:
        """Nothing."""
        return ()

    def documents(self) -> Iterator[Document | Rejected]:
        """One dialog a problem, the families taking turns: those of all parts, in the order of a learner's lessons."""
        for problem in training_problems(self.count, families=self.families):
            yield _dialog(problem)

    def fingerprint(self) -> str:
        """Hex digest of the count, the families with their versions, and the share kept for the exam."""
        return _digest(f"{self.count} {[_named(name) for name in self.families]}")


@dataclass(frozen=True)
class ProblemPart:
    """The problems of one family. A `Part`."""

    family: str
    """A file in havoc_problems/families/, or a module of the user's own."""
    count: int
    """How many, from the first."""

    @property
    def key(self) -> str:
        """Hex digest of the family, its version, the count, and the share kept for the exam."""
        return _digest(f"{self.count} {_named(self.family)}")

    def documents(self) -> Iterator[Document | Rejected]:
        """One dialog a problem; the origin is "problems/<family>", the ordinal the seed the family made it from."""
        for problem in training_problems(self.count, families=[self.family]):
            yield _dialog(problem)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """None: there are no files."""
        return {}


def _dialog(problem: Problem) -> Document:
    messages = tuple((message["role"], message["content"]) for message in problem.messages())
    return Document(f"problems/{problem.family}", messages=messages, ordinal=problem.seed, licence=_LICENCE)


def _named(family: str) -> str:
    return f"{family} {family_version(family)}"


def _digest(what: str) -> str:
    return hashlib.blake2b(f"problems 1 {what} {EXAM_SHARE}".encode(), digest_size=16).hexdigest()
