"""Which files a source of text reads, and what becomes of the others.

A folder is walked in the order of its names. Nothing is passed over in silence: whatever is not read comes
back as `Rejected` with its reason. A symbolic link is followed only inside the folder, and each file is read
once, so that a loop of links ends and a link out of the folder leads nowhere.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Rejected
from havoc_data.inputs import stamp_of


@dataclass(frozen=True)
class FoundFile:
    """A regular file that may be read."""

    origin: str
    """Path relative to the folder with forward slashes; of a single file, its name."""
    path: Path
    """Where it really is."""
    bytes: int
    """Its size on disk."""
    stamp: tuple[int, int]
    """As `Input.stamp`."""


@dataclass(frozen=True)
class Found:
    """What is in a folder, each in the order of its origin in bytes."""

    root: Path
    """The folder, resolved; of a single file, its folder."""
    files: tuple[FoundFile, ...]
    """Every file that is neither hidden nor left out, whatever it holds."""
    rejected: tuple[Rejected, ...]
    """Everything else: rules hidden, excluded and unreadable."""
    is_file: bool = False
    """Whether one file was asked for, by its own path."""


def needed_path(kind: str, path: str | None) -> Path:
    """`path` of a source that reads files.

    Raises:
        ConfigError: there is none.
    """
    if path is None:
        raise ConfigError(
            "data.sources.path",
            f"a source of kind '{kind}' has no path.",
            "Give it the folder or file to read: path: data/math",
        )
    return Path(path)


def refuse_path(kind: str, path: str | None) -> None:
    """Raise ConfigError if a source that reads no files is given a path."""
    if path is not None:
        raise ConfigError(
            "data.sources.path", f"'{path}' is given, but a source of kind '{kind}' reads no files.", "Leave path out."
        )


def find_files(path: Path, *, exclude: Sequence[str] = ()) -> Found:
    """Every file at or below `path`.

    Args:
        path: a folder, walked to its bottom, or one file.
        exclude: patterns relative to the folder; see `Patterns`.

    Raises:
        DataError: there is nothing at `path`, or the folder cannot be listed.
    """
    if not _exists(path):
        raise DataError(
            str(path), "there is no such file or folder.", "Check data.sources.path, or create it and put text into it."
        )
    if path.is_file():
        file = path.resolve()
        status = file.stat()
        found = FoundFile(_printable(path.name), file, status.st_size, stamp_of(status))
        return Found(file.parent, (found,), (), is_file=True)
    if not path.is_dir():
        raise DataError(str(path), "it is neither a folder nor a regular file.", "Name a folder or a file of text.")
    walk = _Walk(path.resolve(), Patterns.of(exclude))
    walk.run()
    return Found(
        walk.root,
        tuple(sorted(walk.files, key=lambda file: file.origin.encode())),
        tuple(sorted(walk.rejected, key=lambda rejected: rejected.origin.encode())),
    )


def nothing_to_read(path: Path, rejected: Sequence[Rejected], ends: Sequence[str]) -> DataError:
    """The error that a folder without a single file of the wanted kind deserves.

    Args:
        path: the folder, as given.
        rejected: everything in it.
        ends: how names of the wanted files end, such as ".txt".
    """
    wanted = ", ".join(ends)
    refused = [each for each in rejected if each.origin.lower().endswith(tuple(ends)) and each.rule != "metadata_file"]
    if refused:
        first = refused[0]
        what = f"none of its {len(refused)} text files can be read; the first is {first.origin}: {first.reason}."
        return DataError(str(path), what, "Mend them, or correct data.exclude, or take the folder away.")
    others = [each for each in rejected if each.rule != "hidden"]
    if not others:
        return DataError(str(path), "the folder is empty.", f"Put text into it ({wanted}), or take the folder away.")
    kinds = Counter(Path(each.origin).suffix.lower() or "no ending" for each in others)
    seen = ", ".join(
        f"{count} {suffix}" for suffix, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:8]
    )
    return DataError(str(path), f"nothing in it is text; it holds {seen}.", f"Convert these files to one of {wanted}.")


def nothing_came_out(path: Path, rejected: int, first: Rejected | None) -> DataError:
    """The error that a source deserves of whose files not one gave a document."""
    why = f" The first of {rejected}: {first.origin}: {first.reason}." if first else ""
    return DataError(str(path), f"no text could be read from it.{why}", "Put text into it, or take it out of the data.")


@dataclass(frozen=True)
class Patterns:
    """Patterns of paths: `*` and `?` stay inside a name, `**` crosses folders, `[ab]` is one of these.

    A pattern that fits a folder fits everything in it.
    """

    texts: tuple[str, ...]
    compiled: tuple[re.Pattern[str], ...]

    @classmethod
    def of(cls, patterns: Sequence[str]) -> Patterns:
        """The patterns, compiled. Every text is a pattern; an open bracket without its end is a bracket."""
        return cls(tuple(patterns), tuple(re.compile(_as_regex(pattern)) for pattern in patterns))

    def first_match(self, origin: str) -> str | None:
        """The first pattern that fits the relative path `origin`."""
        for text, pattern in zip(self.texts, self.compiled, strict=True):
            if pattern.fullmatch(origin):
                return text
        return None


_PIECE = re.compile(
    r"(?P<folders>\*\*/)|(?P<any>\*\*)|(?P<name>\*)|(?P<one>\?)|\[(?P<not>!?)(?P<set>\]?[^\]/]*)\]|(?P<plain>.)",
    re.DOTALL,
)


def _as_regex(pattern: str) -> str:
    written = []
    for piece in _PIECE.finditer(pattern.removeprefix("./").rstrip("/")):
        if piece["folders"]:
            written.append("(?:.*/)?")
        elif piece["any"]:
            written.append(".*")
        elif piece["name"]:
            written.append("[^/]*")
        elif piece["one"]:
            written.append("[^/]")
        elif piece["set"]:
            inside = re.sub(r"([\\\[\]&~|^])", r"\\\1", piece["set"])
            written.append(f"[{'^/' if piece['not'] else ''}{inside}]")
        else:
            written.append(re.escape(piece[0]))
    return f"(?s:{''.join(written)}(?:/.*)?)"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be searched
        return False


def _printable(name: str) -> str:
    """A path that is valid UTF-8, with forward slashes: bytes that are not are written as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace").replace(os.sep, "/")


class _Walk:
    """One walk through one folder. First what is really there, then the links, so that each file keeps its own name."""

    def __init__(self, root: Path, exclude: Patterns) -> None:
        self.root = root
        self.exclude = exclude
        self.files: list[FoundFile] = []
        self.rejected: list[Rejected] = []
        self._hidden: list[tuple[str, Path]] = []
        self._links: list[tuple[str, Path]] = []
        self._seen: set[Path] = set()

    def run(self) -> None:
        """Walk; what was found lies in files and rejected."""
        try:
            next(self.root.iterdir(), None)
        except OSError as error:
            raise DataError(
                str(self.root),
                f"the folder cannot be listed ({error.strerror}).",
                "Give yourself the right to read it.",
            ) from None
        self._folder("", self.root)
        while self._links:
            self._link(*self._links.pop())
        self.rejected += [self._named_as_hidden(origin, path) for origin, path in self._hidden]

    def _folder(self, prefix: str, folder: Path) -> None:
        waiting = [(prefix, folder)]
        while waiting:
            prefix, folder = waiting.pop()
            self._seen.add(folder)
            try:
                # Last name first out of the stack of folders; links keep the order of their names too.
                entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name), reverse=True)
            except OSError as error:
                self.rejected.append(Rejected(prefix.rstrip("/"), f"the folder cannot be listed ({error.strerror})"))
                continue
            for entry in entries:
                origin = prefix + _printable(entry.name)
                if entry.name.startswith("."):
                    self._hidden.append((origin, Path(entry.path)))
                elif entry.is_symlink():
                    self._links.append((origin, Path(entry.path)))
                elif entry.is_dir() and entry.name.endswith("!"):
                    # "a.zip!/b" is b inside the archive a.zip, and one origin must not be two files.
                    reason = "the name of a folder ends with '!', as that of an archive is written; rename it"
                    self.rejected.append(Rejected(origin, reason))
                elif entry.is_dir():
                    waiting.append((origin + "/", Path(entry.path)))
                else:
                    self._file(origin, Path(entry.path))

    def _named_as_hidden(self, origin: str, path: Path) -> Rejected:
        """Called last: what a link with a visible name led to is no longer hidden."""
        is_folder = path.is_dir() and not path.is_symlink()
        inside = [Path(top, name) for top, _, names in os.walk(path) for name in names] if is_folder else [path]
        size = sum(_bytes_of(file) for file in inside if file not in self._seen)
        reason = f"hidden {'folder' if is_folder else 'file'}: its name begins with a dot"
        return Rejected(origin, reason, size, rule="hidden")

    def _file(self, origin: str, path: Path) -> None:
        self._seen.add(path)
        try:
            status = path.stat()
        except OSError as error:
            self.rejected.append(Rejected(origin, f"it cannot be read ({error.strerror})"))
            return
        if pattern := self.exclude.first_match(origin):
            reason = f"left out by exclude '{pattern}'"
            self.rejected.append(Rejected(origin, reason, status.st_size, rule="excluded"))
        elif not stat.S_ISREG(status.st_mode):
            self.rejected.append(Rejected(origin, "it is no regular file"))
        else:
            self.files.append(FoundFile(origin, path, status.st_size, stamp_of(status)))

    def _link(self, origin: str, path: Path) -> None:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # Python 3.11 and 3.12 raise RuntimeError for a loop
            self.rejected.append(Rejected(origin, "a symbolic link that leads nowhere"))
            return
        if not target.is_relative_to(self.root):
            self.rejected.append(
                Rejected(origin, "a symbolic link that leaves the folder; name its target as a source, or copy it in")
            )
        elif target in self._seen:
            return  # it is read under its own name
        elif target.is_dir():
            self._folder(origin + "/", target)
        else:
            self._file(origin, target)


def _bytes_of(path: Path) -> int:
    try:
        status = path.lstat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0
