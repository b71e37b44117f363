"""Writes docs/reference/settings.md from the docstrings of the settings.

python docs/settings_page.py            writes the page
python docs/settings_page.py --check    exit code 1 if the page is not what would be written
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from havoc_core.config import MODEL_SIZES, ModelConfig, SourceConfig, TrainingConfig
from havoc_core.costs import num_parameters

PAGE = Path(__file__).resolve().parent / "reference" / "settings.md"

SHELVES = {
    "havoc_training.optimizers": (
        "Options of an optimizer",
        "`optimizer: NAME`, its own settings under `optimizer_options:`.",
    ),
    "havoc_data.readers": (
        "Options of a reader",
        "By its name in `reader_options:`, among the options of a source of kind `files`.",
    ),
    "havoc_data.runners": ("Options of a runner", "`data.runner: NAME`, its own settings in `data.runner_options`."),
    "havoc_data.sources": ("Options of a source", "`kind: NAME` in `data.sources`, its own settings under `options:`."),
}
"""Shelf -> (heading, how a file on it is reached). What cannot be set in a file has no place on the page."""

HEAD = """\
# Settings

<!-- Written by docs/settings_page.py from the docstrings: change those, then run `make docs`. -->

One YAML file is one run. Default < file < command line, and nothing else; every setting is also a flag:
`--batch-size 2`, `--model.num-layers 8`. `3e-4`, `3.0e-4` and `0.0003` mean the same. A key that is not on this page is
an error that names the nearest one. `havoc config show` prints every value with its origin.
"""

KINDS = {bool: "true or false", int: "whole number", float: "number", str: "text", type(None): "null"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_sections(TrainingConfig, "", "A training run"), _sizes(), *_shelves()]
    return "\n".join(parts)


def _sections(model: type[BaseModel], prefix: str, title: str) -> Iterator[str]:
    """A table for the section, then its sub-sections in their order."""
    inside = {name: field for name, field in model.model_fields.items() if _is_section(field.annotation)}
    own = {name: field for name, field in model.model_fields.items() if name not in inside}
    yield f"## {title}\n\n{_first_line(model)}\n\n{_table(own, prefix)}"
    for name, field in inside.items():
        section: Any = field.annotation
        yield from _sections(section, f"{prefix}{name}.", f"`{prefix}{name}`")
        if section.model_fields.get("sources"):
            table = _table(SourceConfig.model_fields, "")
            yield f"## `{prefix}{name}.sources[]`\n\n{_first_line(SourceConfig)}\n\n{table}"


def _table(fields: dict[str, FieldInfo], prefix: str) -> str:
    rows = [
        f"| `{prefix}{name}` | {_kind(field.annotation, field.metadata)} | {_default(field)} | {_meaning(field)} |"
        for name, field in fields.items()
    ]
    return "\n".join(["| setting | kind | default | meaning |", "| --- | --- | --- | --- |", *rows, ""])


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """In words, with its bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [
            bound for each in arguments[1:] for bound in (each.metadata if isinstance(each, FieldInfo) else [each])
        ]
        return _kind(arguments[0], inner)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in {Union, UnionType}:
        return " or ".join(_kind(each, []) for each in arguments)
    if origin in {list, tuple}:
        return f"list of {_kind(arguments[0], []).replace('whole number', 'whole numbers')}"
    if origin in {dict, Mapping}:
        return "mapping" if arguments[1] is Any else f"mapping to {_kind(arguments[1], [])}"
    if _is_section(annotation):
        return "sources"
    bounds = [
        f"{sign} {_number(getattr(each, name))}"
        for each in metadata
        for name, sign in BOUNDS.items()
        if hasattr(each, name)
    ]
    return " ".join([KINDS[annotation], ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required" if field.default_factory is None else f"`{json.dumps(field.default_factory())}`"  # type: ignore[call-arg]
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value)}`"


def _sizes() -> str:
    rows = []
    for name in MODEL_SIZES:
        model = ModelConfig.model_validate(name)
        heads = f"{model.attention.num_heads} / {model.attention.num_kv_heads} of {model.head_dim}"
        shape = f"{model.num_layers} | {model.d_model} | {heads} | {model.mlp.hidden_dim} | {model.vocab_size:,}"
        rows.append(f"| `{name}` | {num_parameters(model) / 1e6:,.1f} M | {shape} |")
    return "\n".join(
        [
            "## Named sizes\n",
            "What `model.size` fills in; any field that is given wins over it.\n",
            "| size | parameters | layers | width | heads / key-value heads | hidden | vocabulary |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def _shelves() -> Iterator[str]:
    for shelf, (title, how) in SHELVES.items():
        yield f"## {title}\n\n{how}\n"
        for found in pkgutil.iter_modules(importlib.import_module(shelf).__path__):
            if not found.name.startswith("_"):
                fields = importlib.import_module(f"{shelf}.{found.name}").Options.model_fields
                yield f"### `{found.name}`\n"
                yield _table(fields, "") if fields else "No settings.\n"


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").replace("|", "\\|").split())


def main(argv: list[str]) -> int:
    """Write the page, or compare it; gives the exit code."""
    if argv == ["--check"]:
        same = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        print(
            "settings.md is as it would be written."
            if same
            else "settings.md is not what the docstrings say: run `make docs`."
        )
        return 0 if same else 1
    if argv:
        print(f"usage: {Path(__file__).name} [--check]")
        return 2
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
