"""Rows alone: the .jsonl files of a folder, or one file, packed or not; the kind `files` reads them and more."""

from __future__ import annotations

from havoc_core.config import Section
from havoc_data.sources._file_source import FileSource, find_source
from havoc_data.sources._files import needed_path


class Options(Section):
    """Settings of this kind of source."""

    text_field: str = "text"
    """Key of the text in a row."""
    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out, relative to the folder, such as "**/draft_*"."""
    mend_encoding: bool = True
    """Find encodings other than UTF-8, and mend text that was decoded wrongly."""


def build(path: str | None, options: Options) -> FileSource:
    """The JSON-lines files at or below `path`.

    Raises:
        ConfigError: there is no path.
        DataError: nothing is there, or no file that is there holds rows.
    """
    return find_source(
        "jsonl",
        needed_path("jsonl", path),
        formats=("jsonl",),
        exclude=options.exclude,
        options={"jsonl": {"text_field": options.text_field, "mend_encoding": options.mend_encoding}},
    )
