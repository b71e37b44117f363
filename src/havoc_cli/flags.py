"""Flags of the commands: tyro reads them, the page of knobs gives names and help, pydantic checks them once.

Every setting is a flag by its own name (`--batch-size 2`, `--model.num-layers 8`); its value is read as YAML, so that
a flag and a line of a file mean the same. Imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import tyro
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typing_extensions import TypedDict

from havoc_core.config import TrainingConfig
from havoc_core.config_files import ResolvedConfig, parse_yaml, read_yaml, resolve
from havoc_data.runner import RUNNERS
from havoc_data.source import SOURCES
from havoc_training.shelves import OPTIMIZERS, TRACKERS

Flags = TypeVar("Flags")


@dataclass(frozen=True)
class ConfigFlags:
    """Flags of a command that takes settings."""

    config: str | None = None
    """YAML file with settings."""
    dummy_data: bool = False
    """Train on random words instead of text, to try the machinery out."""


def parse(flags: type[Flags], argv: Sequence[str], *, prog: str, description: str) -> Flags:
    """The flags of a command without settings; a mistake prints a message and exits with 2."""
    return tyro.cli(flags, args=list(argv), prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))


def parse_with_settings(
    flags: type[Flags], argv: Sequence[str], *, prog: str, description: str
) -> tuple[Flags, dict[str, Any]]:
    """The flags of a command, and the settings that were given as flags, nested like a file.

    Args:
        flags: dataclass of the command's own flags.
        argv: arguments.
        prog: name in the usage line.
        description: first line of the help.
    """
    settings = _settings_type(TrainingConfig, "Settings")
    both = dataclasses.make_dataclass(
        "Both",
        [
            ("command", Annotated[flags, tyro.conf.arg(name="")]),
            ("settings", Annotated[settings, tyro.conf.arg(name="")]),
        ],
    )
    parsed: Any = tyro.cli(
        both, args=list(argv), prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,)
    )
    return parsed.command, _values(TrainingConfig, parsed.settings)


def load_config(flags: ConfigFlags, given: Mapping[str, Any], *, default_file: Path | None = None) -> ResolvedConfig:
    """File and flags, merged and checked.

    Args:
        flags: names the file.
        given: settings from the command line.
        default_file: used when no file is named; None: the built-in defaults.

    Raises:
        ConfigError: the file or a setting is wrong.
    """
    path = Path(flags.config) if flags.config else default_file
    values = read_yaml(path) if path else {}
    settings = with_dummy_data(given) if flags.dummy_data else given
    resolved = resolve(values, settings, file_name=str(path or "defaults"))
    check_names(resolved.config)
    return resolved


def check_names(config: TrainingConfig) -> None:
    """Whether what settings name is on its shelf; asked before any work is done, and without importing it.

    Raises:
        ConfigError: an optimizer, a tracker, a runner or a kind of source is not there; names the nearest.
    """
    OPTIMIZERS.check(config.optimizer)
    for name in config.tracking.trackers:
        TRACKERS.check(name)
    for source in config.data.sources or ():
        SOURCES.check(source.kind)
    RUNNERS.check(config.data.runner)


def with_dummy_data(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with every source replaced by random words."""
    sources = [
        {"kind": "dummy", "name": f"dummy_{group}", "group": group, "options": {"seed": number}}
        for number, group in enumerate(("domain", "general", "dialog"))
    ]
    return {**given, "data": {**given.get("data", {}), "sources": sources}}


def _settings_type(section: type[BaseModel], name: str) -> Any:
    """A TypedDict with the section's fields, none of them required: what was not given stays out."""
    fields: dict[str, Any] = {}
    for field_name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields[field_name] = _settings_type(kind, f"{name}_{field_name}")
        else:
            hint = "" if field.default is PydanticUndefined else f"(default: {_spelled(field.default)})"
            argument = tyro.conf.arg(help=field.description, help_behavior_hint=hint, metavar=_metavar(kind))
            fields[field_name] = Annotated[str, argument]
    return TypedDict(name, fields, total=False)  # type: ignore[operator]


def _values(section: type[BaseModel], given: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in given.items():
        kind = section.model_fields[name].annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inner = _values(kind, value)
            if inner:
                out[name] = inner
        elif _is_text(kind):
            out[name] = None if value == "null" else value
        else:
            out[name] = parse_yaml(value, where=f"--{name.replace('_', '-')}")
    return out


def _is_text(kind: Any) -> bool:
    return kind is str or (get_origin(kind) in {Union, UnionType} and set(get_args(kind)) == {str, type(None)})


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        return _metavar(get_args(kind)[0])
    if get_origin(kind) is Literal:
        return "{" + ",".join(str(choice) for choice in get_args(kind)) + "}"
    if get_origin(kind) in {Union, UnionType}:
        return "|".join(_metavar(part) for part in get_args(kind))
    if kind is type(None):
        return "null"
    return {bool: "{true,false}", int: "INT", float: "FLOAT", str: "TEXT"}.get(kind, "YAML")


def _spelled(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    return "none" if value in ([], {}) else str(value)
