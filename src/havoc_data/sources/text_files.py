"""Plain text alone: the .txt, .md, .rst and .text files of a folder, or one file; the kind `files` reads them and more."""

from __future__ import annotations

from havoc_core.config import Section
from havoc_data.sources._file_source import FileSource, find_source
from havoc_data.sources._files import needed_path


class Options(Section):
    """Settings of this kind of source."""

    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out, relative to the folder, such as "**/draft_*"."""
    mend_encoding: bool = True
    """Find encodings other than UTF-8, and mend text that was decoded wrongly."""


def build(path: str | None, options: Options) -> FileSource:
    """The text files at or below `path`.

    Raises:
        ConfigError: there is no path.
        DataError: nothing is there, or nothing that is there is text.
    """
    return find_source(
        "text_files",
        needed_path("text_files", path),
        formats=("text",),
        exclude=options.exclude,
        options={"text": {"mend_encoding": options.mend_encoding}},
    )
