"""Every file of a folder, an archive or one file, each read by the reader of its format, packed or not.

Formats are told by the ends of names (`havoc_data.reader.FORMATS`), behind .gz, .zst, .bz2 and .xz, and inside .zip and
.tar archives. What has no reader is named, and so is everything else that is not read.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from havoc_core.config import Section
from havoc_core.errors import ConfigError
from havoc_data.reader import FORMATS, READERS
from havoc_data.sources._file_source import FileSource, find_source
from havoc_data.sources._files import needed_path


class Options(Section):
    """Settings of this kind of source."""

    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out, relative to the folder, such as "**/draft_*"."""
    formats: tuple[str, ...] = ()
    """Formats to read, such as text, tex or pdf; none named: all."""
    reader_options: Mapping[str, Mapping[str, Any]] = {}
    """What a reader alone understands, such as {"table": {"column": "body"}}."""


def build(path: str | None, options: Options) -> FileSource:
    """The files at or below `path`.

    Raises:
        ConfigError: there is no path, a format does not exist, or an option of a reader is wrong.
        DataError: nothing is there, or nothing that is there can be read.
        MissingPackageError: a reader whose files are there needs a package that is not installed.
    """
    folder = needed_path("files", path)
    for name in options.formats:
        _check(name, "formats")
    for name, values in options.reader_options.items():
        _check(name, "reader_options")
        try:
            READERS.options(name, values)
        except ConfigError as error:
            key = error.where.removeprefix(f"{READERS.setting}_options.")
            where = f"data.sources.options.reader_options.{name}.{key}"
            raise ConfigError(where, error.found, error.remedy) from None
    return find_source(
        "files",
        folder,
        formats=options.formats or tuple(FORMATS),
        exclude=options.exclude,
        options=options.reader_options,
    )


def _check(name: str, option: str) -> None:
    if name not in FORMATS:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        remedy = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(FORMATS)}."
        raise ConfigError(f"data.sources.options.{option}", f"'{name}' is not a format that can be read.", remedy)
