"""The families on the shelf, and the problems of training and of the exam."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from havoc_core.errors import ConfigError
from havoc_core.registry import Shelf
from havoc_problems.problem import Family, Problem, Subject
from havoc_problems.splits import exam_seed, reserved_for_exam, training_seed

FAMILIES = Shelf("havoc_problems.families", setting="family", thing="a family of problems")

_BARREN_SEEDS = 2000
"""So many exam seeds in a row without a new statement, and a family is taken to have no more. While new ones are
left, chance alone does that once in (16/15)^2000 = 1e56 tries."""


@dataclass(frozen=True)
class ShelfFamily:
    """A file on the shelf together with its options; a `Family`."""

    name: str
    field: Subject
    version: int
    options: BaseModel
    maker: Callable[[int, Any], Problem]

    def build(self, seed: int) -> Problem:
        """The problem of a seed."""
        return self.maker(seed, self.options)


def family_names() -> list[str]:
    """Names of all families, sorted; imports none of them."""
    return FAMILIES.names()


def family_version(name: str) -> int:
    """VERSION of a family on the shelf, read from its file: importing it would load SciPy or SymPy.

    Raises:
        ConfigError: there is no such family.
    """
    spec = importlib.util.find_spec(f"{FAMILIES.package}.{name}") if "." not in name else None
    if spec is None or spec.origin is None:
        return build_family(name).version
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "VERSION":
            return int(ast.literal_eval(node.value))
    return build_family(name).version


def build_family(name: str, options: Mapping[str, Any] | None = None) -> ShelfFamily:
    """The family called `name`, with its `Options` set from `options`.

    Raises:
        ConfigError: there is no such family, an option is unknown or out of range, or a module of the user's own
            lacks `FIELD` or `VERSION`.
    """
    module = FAMILIES.module(name)
    field: Any = getattr(module, "FIELD", None)
    version: Any = getattr(module, "VERSION", None)
    if field not in get_args(Subject) or not isinstance(version, int):
        raise ConfigError(
            "family",
            f"module '{name}' has FIELD = {field!r} and VERSION = {version!r}.",
            f"Give it a FIELD out of {', '.join(get_args(Subject))} and a whole number as VERSION.",
        )
    return ShelfFamily(name, field, version, FAMILIES.options(name, options or {}), module.build)


def training_problems(
    count: int | None = None, *, families: Sequence[str | Family] | None = None, first: int = 0
) -> Iterator[Problem]:
    """Problems to learn from, the families taking turns; none has a statement of the exam.

    A pure function of its arguments: the same call gives the same problems. Statements may repeat where a family
    has few of them.

    Args:
        count: how many; None for a stream without an end.
        families: names, or families with options of their own; None for all on the shelf.
        first: index of the first training seed, >= 0, the same for every family.

    Raises:
        ConfigError: no family is named, or one does not exist.
        ValueError: count or first is negative.
    """
    if (count is not None and count < 0) or first < 0:
        raise ValueError(f"count and first are 0 or more, found {count} and {first}")
    return islice(_in_turn([_training_supply(family, first) for family in _chosen(families)]), count)


def exam_problems(count: int, *, families: Sequence[str | Family] | None = None) -> list[Problem]:
    """The first `count` problems of the exam, the families taking turns; no statement comes twice.

    A shorter exam is the beginning of a longer one with the same families.

    Args:
        count: how many, >= 0; each family gives its share, one more or less.
        families: names, or families with options of their own; None for all on the shelf.

    Raises:
        ConfigError: no family is named, one does not exist, or one has fewer different problems than its share.
        ValueError: count is negative.
    """
    if count < 0:
        raise ValueError(f"count is 0 or more, found {count}")
    taken: set[str] = set()
    return list(islice(_in_turn([_exam_supply(family, taken) for family in _chosen(families)]), count))


def _chosen(families: Sequence[str | Family] | None) -> list[Family]:
    if isinstance(families, str):  # a str is a sequence of str: "abc" would ask for the families a, b and c
        families = [families]
    chosen = [build_family(f) if isinstance(f, str) else f for f in (family_names() if families is None else families)]
    if not chosen:
        raise ConfigError("families", "no family of problems is named.", f"Name some of: {', '.join(family_names())}.")
    return chosen


def _in_turn(supplies: Sequence[Iterator[Problem]]) -> Iterator[Problem]:
    while True:
        for supply in supplies:
            yield next(supply)


def _training_supply(family: Family, first: int) -> Iterator[Problem]:
    barren = 0
    for index in count_from(first):
        problem = family.build(training_seed(index))
        barren = barren + 1 if reserved_for_exam(problem.statement) else 0
        if not barren:
            yield problem
        elif barren == _BARREN_SEEDS:
            raise ConfigError(
                f"family '{family.name}'",
                f"all of {_BARREN_SEEDS:,} statements in a row belong to the exam.",
                "Widen its options, or leave the family out of training.",
            )


def _exam_supply(family: Family, taken: set[str]) -> Iterator[Problem]:
    given = barren = 0
    for index in count_from():
        problem = family.build(exam_seed(index))
        if reserved_for_exam(problem.statement) and problem.statement not in taken:
            taken.add(problem.statement)
            given, barren = given + 1, 0
            yield problem
        else:
            barren += 1
            if barren == _BARREN_SEEDS:
                raise ConfigError(
                    f"family '{family.name}'",
                    f"it has {given:,} different problems for the exam, and more were asked for.",
                    "Ask for a smaller exam, or widen the options of the family.",
                )
