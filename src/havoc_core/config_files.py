"""From a YAML file and flags to one checked TrainingConfig, and back.

Precedence: default < file < command line. File and flags are merged first and checked once, so a flag can mend a
file. Every complaint is a ConfigError that names the setting's path, what was found there, and the nearest name.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from havoc_core.config import MODEL_SIZES, TrainingConfig
from havoc_core.errors import ConfigError

CONFIG_VERSION = 1
"""Raised when an old config.json would no longer be understood; migrations live in this file."""


# PyYAML wants a dot and a sign in the exponent: without this, 3e-4 and 1e5 are strings.
_FLOAT = re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)$|^[-+]?(\d[\d_]*\.[\d_]*|\.\d[\d_]*)$")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but 3e-4 is a number and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' is given twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


@functools.cache
def _loader() -> type[_Loader]:
    """The loader with the rule for numbers; adding a rule to the class while importing would be work at import."""
    _Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
    return _Loader


@dataclass(frozen=True)
class ResolvedConfig:
    """A checked config and where each value came from."""

    config: TrainingConfig
    origins: dict[str, str]
    """Path of a setting, such as "model.num_layers", -> "default", the file's name, or "command line"."""


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file is missing, is no YAML (with line and column), or is no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({error.strerror}).", "Check the path given to --config."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    values = parse_yaml(text, where=str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            str(path), f"holds a {type(values).__name__}, not settings.", "Write one `name: value` on each line."
        )
    return values


def parse_yaml(text: str, *, where: str) -> Any:
    """A YAML value; 3e-4 is a number.

    Raises:
        ConfigError: the text is no YAML; says line and column.
    """
    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{where}:{mark.line + 1}:{mark.column + 1}" if mark else where
        problem = error.problem or error.context or "it ends too early"
        raise ConfigError(
            place,
            f"this is no YAML: {problem}.",
            "Check the indentation, and put quotes around text with ': ' or '#' in it.",
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(where, f"this is no YAML: {error}.", "Save it as plain UTF-8 text.") from None
    except RecursionError:
        raise ConfigError(where, "this is no YAML: it is nested too deeply.", "Close the brackets.") from None
    except ValueError as error:  # a date of month 13 and the like
        raise ConfigError(where, f"a value cannot be read: {error}.", "Put quotes around it if it is text.") from None


def resolve(
    file_values: Mapping[str, Any], flag_values: Mapping[str, Any], *, file_name: str = "the file"
) -> ResolvedConfig:
    """Merge, check once, and remember where each value came from.

    Raises:
        ConfigError: names every setting that is wrong.
    """
    file_values, flag_values = _model_in_full(file_values), _model_in_full(flag_values)
    file_values = _without_another_shape(file_values, flag_values)
    merged = merge(file_values, flag_values)
    try:
        config = TrainingConfig.model_validate(merged)
    except ValidationError as error:
        raise _translated(error) from None
    origins = {path: "default" for path, _ in leaves(config.model_dump())}
    for values, origin in ((file_values, file_name), (flag_values, "command line")):
        for path, _ in leaves(values):
            origins[path] = origin
    return ResolvedConfig(config, origins)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings merged key by key; `above` wins."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def _model_in_full(values: Mapping[str, Any]) -> dict[str, Any]:
    """`model: nano` is short for `model: {size: nano}`."""
    return {
        key: {"size": value} if key == "model" and isinstance(value, str) else value for key, value in values.items()
    }


def _without_another_shape(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A size that is named above is a whole shape: what a file below says of the shape would win over it part by part."""
    size = above["model"].get("size") if isinstance(above.get("model"), Mapping) else None
    shape = MODEL_SIZES.get(size) if isinstance(size, str) else None
    model = below.get("model")
    if shape is None or not isinstance(model, Mapping):
        return dict(below)
    kept: dict[str, Any] = {}
    for key, value in model.items():
        of_size = shape.get(key)
        if isinstance(of_size, Mapping) and isinstance(value, Mapping):
            kept[key] = {name: inner for name, inner in value.items() if name not in of_size}
        elif of_size is None:
            kept[key] = value
    return {**below, "model": kept}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of everything in nested mappings that is not a mapping with something in it."""
    for key, value in values.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, path + ".")
        else:
            yield path, value


def to_json(config: BaseModel) -> str:
    """Canonical JSON: sorted keys, so equal configs give equal bytes."""
    return json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"


def config_hash(config: BaseModel) -> str:
    """BLAKE2b-128 of the canonical JSON, in hex."""
    return hashlib.blake2b(to_json(config).encode(), digest_size=16).hexdigest()


def from_json(text: str, *, where: str) -> TrainingConfig:
    """A config that `to_json` wrote.

    Raises:
        ConfigError: it is no JSON, or no config of this version.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(where, f"this is no JSON: {error}.", "Take the config.json of another checkpoint.") from None
    if not isinstance(values, dict):
        raise ConfigError(where, "holds no settings.", "Take the config.json of another checkpoint.")
    return resolve(values, {}, file_name=where).config


def setting_docs(model: type[BaseModel] = TrainingConfig, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """(path, annotation, default, docstring) of every setting, sections walked into, in the order of the page."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from setting_docs(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation, field.default, field.description or ""


def _translated(error: ValidationError) -> ConfigError:
    """All of pydantic's complaints in our words; the first in front, the others after it."""
    faults = [_fault(item) for item in error.errors(include_url=False)]
    # A union that matches nowhere complains once per member: the first says enough.
    first, *rest = list({fault[0]: fault for fault in reversed(faults)}.values())[::-1]
    also = "".join(f"\n    also {where}: {found} {remedy}" for where, found, remedy in rest)
    return ConfigError(first[0], first[1], first[2] + also)


def _fault(item: Any) -> tuple[str, str, str]:
    loc = [
        str(part) for part in item["loc"] if not str(part).startswith(("literal[", "bool", "constrained-", "function-"))
    ]
    where = ".".join(loc) or "config"
    kind, found = item["type"], item["input"]
    if kind == "extra_forbidden":
        return where, "there is no such setting.", _nearest_setting(loc)
    if kind == "value_error":
        return where, f"{item['ctx']['error']}.", "Change one of the two."
    if kind in {"literal_error", "bool_parsing", "bool_type"}:
        choices = _choices(loc)
        near = difflib.get_close_matches(str(found), choices, n=1)
        return (
            where,
            f"{found!r} is none of {', '.join(choices)}.",
            f"Did you mean '{near[0]}'?" if near else "Use one of them.",
        )
    if kind in {"model_type", "model_attributes_type", "dict_type"}:
        return (
            where,
            f"{found!r} is one value, but this is a group of settings.",
            f"Write `{loc[-1] if loc else where}: {{name: value}}`.",
        )
    wanted = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return where, f"{found!r} should be {wanted}.", _hint(loc)


def _section(loc: list[str]) -> type[BaseModel]:
    model: type[BaseModel] = TrainingConfig
    for part in loc[:-1]:
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        candidates = [inner, *get_args(inner), *(b for a in get_args(inner) for b in get_args(a))]
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        model = found[0] if found else model
    return model


def _choices(loc: list[str]) -> list[str]:
    field = _section(loc).model_fields.get(loc[-1])
    if field is None:
        return []
    flat: list[str] = []
    for part in (field.annotation, *get_args(field.annotation)):
        flat += ["true", "false"] if part is bool else [a for a in get_args(part) if isinstance(a, str)]
    return list(dict.fromkeys(flat))


def _nearest_setting(loc: list[str]) -> str:
    here = list(_section(loc).model_fields)
    near = difflib.get_close_matches(loc[-1], here, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    elsewhere = [path for path, *_ in setting_docs() if path.rsplit(".", 1)[-1] == loc[-1]]
    if elsewhere:
        return f"Did you mean '{elsewhere[0]}'?"
    return "`havoc config show` lists all settings."


def _hint(loc: list[str]) -> str:
    names = [part for part in loc if not part.isdigit()]
    field = _section(names).model_fields.get(names[-1]) if names else None
    return f"({field.description})" if field and field.description else "`havoc config show` lists all settings."
