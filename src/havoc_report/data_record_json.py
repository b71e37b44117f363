"""A data card as JSON and back: the same card, field by field, or an error that names the field."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from havoc_core.errors import DataError
from havoc_report.data_record import DataCard

VERSION = 1
"""Of the form; another one is refused."""


def to_json(card: DataCard) -> str:
    """The card as JSON, keys sorted: the same card gives the same text, whatever order its counts were made in."""
    content = {"data_card": VERSION, "card": dataclasses.asdict(card)}
    # ASCII: a file name may hold halves of surrogate pairs, which no UTF-8 file can.
    return json.dumps(content, ensure_ascii=True, indent=1, sort_keys=True) + "\n"


def from_json(text: str, *, where: str) -> DataCard:
    """The card that `to_json` wrote.

    Args:
        where: the file it was read from, for the message.

    Raises:
        DataError: it is no data card, or one of another version.
    """
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or content.get("data_card") != VERSION:
            found = content.get("data_card") if isinstance(content, dict) else None
            raise ValueError(f"version {found!r}, not {VERSION}")
        card = _value(DataCard, content.get("card"), "card")
    except ValueError as error:
        raise DataError(
            where,
            f"this is no data card that this version can read: {error}.",
            "Make it again: havoc data card PATH.",
        ) from error
    assert isinstance(card, DataCard), "a dataclass is read as itself"
    return card


def _value(kind: Any, raw: Any, at: str) -> Any:
    """`raw` as a value of the annotated type `kind`; a ValueError names the place `at` where they differ."""
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, raw, at)
    if origin is tuple and isinstance(raw, list):
        return tuple(_value(inner[0], each, f"{at}[{number}]") for number, each in enumerate(raw))
    if origin is Mapping and isinstance(raw, dict):
        return {key: _value(inner[1], each, f"{at}[{key!r}]") for key, each in raw.items()}
    if inner and origin not in (tuple, Mapping):
        return _one_of(inner, raw, at)
    if kind is float and type(raw) is int:
        return raw
    # type(), not isinstance(): True is an int.
    if type(raw) is not kind:
        raise ValueError(f"{at} is {raw!r:.60}, not {kind!r}")
    return raw


def _record(kind: type[Any], raw: Any, at: str) -> Any:
    hints = get_type_hints(kind)
    names = [each.name for each in dataclasses.fields(kind)]
    if not isinstance(raw, dict) or set(raw) != set(names):
        found = sorted(raw) if isinstance(raw, dict) else raw
        raise ValueError(f"{at} has {found!r:.120}, not the fields of a {kind.__name__}")
    return kind(**{name: _value(hints[name], raw[name], f"{at}.{name}") for name in names})


def _one_of(kinds: tuple[Any, ...], raw: Any, at: str) -> Any:
    """The first of `kinds` that fits; the complaint is that of the last one that is not None."""
    if raw is None and type(None) in kinds:
        return None
    complaint = ValueError(f"{at} is {raw!r:.60}")
    for kind in kinds:
        if kind is not type(None):
            try:
                return _value(kind, raw, at)
            except ValueError as error:
                complaint = error
    raise complaint
