"""`havoc config show | check | schema`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from havoc_cli.flags import ConfigFlags, load_config, parse, parse_with_settings
from havoc_cli.subcommands import pick
from havoc_core.config import TrainingConfig
from havoc_core.config_files import ResolvedConfig, leaves


def run(argv: Sequence[str]) -> int:
    """Show settings with their origins, check them without starting, or print their JSON schema."""
    return pick("config", {"show": _show, "check": _check, "schema": _schema}, argv)


def _load(name: str, argv: Sequence[str], description: str) -> ResolvedConfig:
    flags, given = parse_with_settings(ConfigFlags, argv, prog=f"havoc config {name}", description=description)
    return load_config(flags, given)


def _show(argv: Sequence[str]) -> int:
    resolved = _load("show", argv, "Every setting, and where its value came from.")
    rows = [
        (path, json.dumps(value, ensure_ascii=False)) for path, value in leaves(resolved.config.model_dump(mode="json"))
    ]
    width, value_width = max(len(path) for path, _ in rows), min(40, max(len(value) for _, value in rows))
    for path, value in rows:
        origin = resolved.origins.get(path, "default")
        print(f"{path.ljust(width)}  {value.ljust(value_width)}  {'' if origin == 'default' else origin}".rstrip())
    return 0


def _check(argv: Sequence[str]) -> int:
    _load("check", argv, "Check settings without starting anything.")
    print("All settings are right.")
    return 0


@dataclass(frozen=True)
class SchemaFlags:
    """`havoc config schema` has no flags."""


def _schema(argv: Sequence[str]) -> int:
    parse(SchemaFlags, argv, prog="havoc config schema", description="The settings as a JSON schema, for editors.")
    print(json.dumps(TrainingConfig.model_json_schema(), indent=2))
    return 0
