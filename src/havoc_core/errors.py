"""Every error a user can meet.

HavocError                    where, what was found, what to do
|-- ConfigError               a setting or a flag is wrong                         exit code 2
|-- DataError                 a text, a folder or a store of the user is wrong     exit code 2
|-- PlanError                 it cannot work as planned: memory, disk, tokens      exit code 3
|-- CheckpointError           a checkpoint is damaged, of another shape, unwritable  exit code 1
|-- TrainingError             the run failed while working                         exit code 1
`-- MissingPackageError       an optional package is not installed                 exit code 2

The command line prints one of these as a single message without a traceback. Anything else that
escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class HavocError(Exception):
    """An error with three parts, so that no message can leave one out.

    Args:
        where: the setting, file or place that is meant, such as "optimizer" or "data/stats/a.txt".
        found: what is wrong there, with the value that was found.
        remedy: what the reader can do about it; a sentence or two.
    """

    exit_code = 1

    def __init__(self, where: str, found: str, remedy: str) -> None:
        super().__init__(where, found, remedy)
        self.where = where
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.found} {self.remedy}"


class ConfigError(HavocError):
    """A setting or a flag is wrong. Never a ValueError: pydantic would swallow it."""

    exit_code = 2


class DataError(HavocError):
    """A text, a folder or a token store of the user is wrong."""

    exit_code = 2


class MissingPackageError(HavocError):
    """Something was asked for that needs a package of an extra."""

    exit_code = 2


class PlanError(HavocError):
    """It cannot work as planned; the remedy names the nearest plan that does."""

    exit_code = 3


class CheckpointError(HavocError):
    """A checkpoint is missing, damaged, of another shape, or cannot be written."""


class TrainingError(HavocError):
    """The run failed while working; the remedy says what was saved."""
