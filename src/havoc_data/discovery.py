"""Where the text of a run comes from: the sources that are named, or the folders of `data/`, or the fallback.

An empty source is an error: what the user meant to be text is never replaced by something else.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from havoc_core.config import DataMixtureConfig, SourceConfig
from havoc_core.errors import ConfigError, DataError
from havoc_data.document import GROUPS
from havoc_data.names import is_file_name
from havoc_data.reader import FORMATS, READERS
from havoc_data.source import SOURCES, Source

_FALLBACKS: Mapping[str, tuple[SourceConfig, ...]] = {
    "package_docs": (
        SourceConfig(kind="package_docs", name="math", group="domain", options={"collection": "math"}),
        SourceConfig(kind="package_docs", name="stats", group="domain", options={"collection": "stats"}),
        SourceConfig(kind="package_docs", name="engineering", group="domain", options={"collection": "engineering"}),
        SourceConfig(kind="package_docs", name="general", group="general", options={"collection": "general"}),
        SourceConfig(kind="problems", name="dialog", group="dialog", options={"count": 20000}),
    ),
    # One seed each: equal documents in two groups would be taken for copies.
    "dummy": (
        SourceConfig(kind="dummy", name="dummy_domain", group="domain", options={"seed": 0}),
        SourceConfig(kind="dummy", name="dummy_general", group="general", options={"seed": 1}),
        SourceConfig(kind="dummy", name="dummy_dialog", group="dialog", options={"seed": 2}),
    ),
}


@dataclass(frozen=True)
class SourceEntry:
    """One source of the run. Several entries may share a name; in weights and reports they are one."""

    name: str
    """What it is called in reports and weights."""
    group: str
    """domain, general or dialog."""
    config: SourceConfig
    """How it was asked for, name and exclude filled in; its path is as given, relative to `base`."""
    source: Source
    """Gives the documents."""


@dataclass(frozen=True)
class SourcePlan:
    """Where the text of a run comes from."""

    entries: tuple[SourceEntry, ...]
    """In the order in which they are read."""
    dummy: bool
    """Whether random words are among them; every screen says so then."""
    fallback_used: bool
    """Whether there was no text of the user."""
    missing_groups: tuple[str, ...]
    """Groups that have a share in the settings and no source."""
    ratios: dict[str, float]
    """Group -> share of the learnt tokens, after the missing groups' shares went to the others; adds up to 1."""


def discover(data: DataMixtureConfig, base: Path) -> SourcePlan:
    """The sources that `data` asks for.

    Args:
        data: the settings.
        base: folder that relative paths in the settings start from.

    Raises:
        ConfigError: a source's kind or options are wrong, two groups have a source of the same name, `data.sources`
            is empty, or `data.weights` names no source.
        DataError: a folder is missing, empty or without text; files lie beside the folders; or a group that has a
            share has no source and `data.missing_group` is "error".
    """
    configs, setting, fallback_used = _asked_for(data, base)
    entries = tuple(_entry(config, setting.format(number), data, base) for number, config in enumerate(configs))
    _check_names(entries, data)
    missing, ratios = _shares(entries, data)
    dummy = any(entry.config.kind == "dummy" for entry in entries)
    return SourcePlan(entries, dummy, fallback_used, missing, ratios)


def _asked_for(data: DataMixtureConfig, base: Path) -> tuple[tuple[SourceConfig, ...], str, bool]:
    """(sources, how the setting of source number {} is called, whether they are the fallback)."""
    if data.sources is not None:
        if not data.sources:
            raise ConfigError(
                "data.sources", "the list is empty.", "Name a source, or leave it out: null reads data_dir."
            )
        return tuple(data.sources), "data.sources[{}]", False
    folder = base / data.data_dir
    if folder.exists():
        return _in_folder(folder, data), "data.data_dir", False
    if data.data_dir != DataMixtureConfig.model_fields["data_dir"].default:
        # A folder that was named is meant to be there. Random words in its place would be found out much too late.
        raise DataError(
            str(folder),
            "data.data_dir names it, and there is no such folder.",
            "Correct data.data_dir, or leave it out to use the fallback.",
        )
    return _FALLBACKS[data.fallback], "data.fallback", True


def _in_folder(folder: Path, data: DataMixtureConfig) -> tuple[SourceConfig, ...]:
    """A source for each sub-folder."""
    if not folder.is_dir():
        raise DataError(
            str(folder),
            "it is a file, and data_dir is a folder.",
            "Name the file in data.sources, and a folder here.",
        )
    try:
        inside = sorted(
            (each for each in folder.iterdir() if not each.name.startswith(".")), key=lambda each: each.name
        )
    except OSError as error:
        raise DataError(
            str(folder), f"the folder cannot be listed ({error.strerror}).", "Give yourself the right to read it."
        ) from None
    loose = [each.name for each in inside if not each.is_dir()]
    if loose:
        named = ", ".join(loose[:3]) + (f" and {len(loose) - 3} more" if len(loose) > 3 else "")
        raise DataError(
            str(folder),
            f"files lie directly in it ({named}).",
            f"Put them into {data.data_dir}/<group>/, such as {data.data_dir}/math/, or take them away.",
        )
    if not inside:
        raise DataError(
            str(folder),
            "the folder is empty.",
            f"Put text into {data.data_dir}/<group>/, such as {data.data_dir}/math/, or remove the folder.",
        )
    return tuple(_of_sub_folder(each, data) for each in inside)


def _of_sub_folder(folder: Path, data: DataMixtureConfig) -> SourceConfig:
    group: Any = folder.name if folder.name in ("general", "dialog") else "domain"
    return SourceConfig(kind="files", path=f"{data.data_dir.rstrip('/')}/{folder.name}", group=group, name=folder.name)


def _entry(config: SourceConfig, setting: str, data: DataMixtureConfig, base: Path) -> SourceEntry:
    """The source of one setting, built."""
    options: dict[str, Any] = dict(config.options)
    path = None if config.path is None else base / config.path
    try:
        module = SOURCES.module(config.kind)
        own = options.get("exclude", [])
        if data.exclude and "exclude" in module.Options.model_fields and isinstance(own, list | tuple):
            options["exclude"] = [*data.exclude, *own]
        if not data.cleaning.mend_encoding:
            _leave_encodings(options, module.Options.model_fields)
        checked = SOURCES.options(config.kind, options)
        source: Source = module.build(None if path is None else str(path), checked)
    except ConfigError as error:
        raise ConfigError(_where(error.where, setting), error.found, error.remedy) from None
    name = config.name or (Path(os.path.normpath(path)).name if path else "") or config.kind
    if not is_file_name(name):
        raise ConfigError(
            f"{setting}.name", f"{name!r} cannot be part of a file's name.", "Use letters, digits, - and _."
        )
    return SourceEntry(name, config.group, config.model_copy(update={"name": name, "options": options}), source)


def _leave_encodings(options: dict[str, Any], known: Collection[str]) -> None:
    """Say to every reader that has the option not to mend encodings, unless the source says otherwise itself."""
    if "mend_encoding" in known:
        options.setdefault("mend_encoding", False)
    own = options.get("reader_options", {})
    if "reader_options" not in known or not isinstance(own, Mapping):
        return  # a mistake is named where the options are checked
    readers = [name for name in FORMATS if "mend_encoding" in READERS.module(name).Options.model_fields]
    for name in readers:
        if isinstance(own.get(name, {}), Mapping):
            own = {**own, name: {"mend_encoding": False, **own.get(name, {})}}
    options["reader_options"] = own


def _where(where: str, setting: str) -> str:
    """The place of an error, with the number of the source, which a shelf and a source cannot know."""
    if not where.startswith("data.sources."):
        return f"{setting}.options.{where}"
    where = where.replace("data.sources.kind_options", f"{setting}.options")
    return where.replace("data.sources.", f"{setting}.").rstrip(".")


def _check_names(entries: tuple[SourceEntry, ...], data: DataMixtureConfig) -> None:
    groups: dict[str, str] = {}
    for entry in entries:
        if groups.setdefault(entry.name, entry.group) != entry.group:
            raise ConfigError(
                "data.sources",
                f"a source in {groups[entry.name]} and one in {entry.group} are both called '{entry.name}'.",
                "Give one of them another name.",
            )
    for name in data.weights:
        if name not in groups:
            near = difflib.get_close_matches(name, groups, n=1)
            remedy = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(groups)}."
            raise ConfigError(f"data.weights.{name}", f"'{name}' is not the name of a source.", remedy)


def _shares(entries: tuple[SourceEntry, ...], data: DataMixtureConfig) -> tuple[tuple[str, ...], dict[str, float]]:
    """(groups without text, ratios without them)."""
    present = {entry.group for entry in entries}
    missing = tuple(group for group in GROUPS if group not in present and data.ratios[group] > 0)
    if missing and data.missing_group == "error":
        zero = " and ".join(f"{group}_ratio" for group in missing)
        raise DataError(
            "data",
            f"there is no text for {' and '.join(missing)}, and data.missing_group is 'error'.",
            f"Add a source for each, set {zero} to 0, or set missing_group: renormalize.",
        )
    if not missing:
        return (), data.ratios
    total = sum(data.ratios[group] for group in GROUPS if group in present)
    if total <= 0:
        only = " and ".join(sorted(present))
        raise DataError(
            "data",
            f"there is text for {only} only, whose ratio is 0.",
            f"Raise data.{sorted(present)[0]}_ratio, or add text for the other groups.",
        )
    return missing, {group: data.ratios[group] / total if group in present else 0.0 for group in GROUPS}
