"""Which files a source of text reads, and what becomes of the others.

A folder is walked in the order of its names. Nothing is passed over in silence: whatever is not read comes
back as `Rejected` with its reason. A symbolic link is followed only inside the folder, and each file is read
once, so that a loop of links ends and a link out of the folder leads nowhere.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from havoc_core.errors import ConfigError, DataError
from havoc_data.document import Rejected

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".text")
"""Ends of the names of files that are text as they stand."""
JSONL_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst")
"""Ends of the names of files with one JSON object a line."""
READ_BYTES = 1024 * 1024
"""How much of a file is read at a time."""


@dataclass(frozen=True)
class Found:
    """What is in a folder, each in the order of its POSIX path in bytes.

    Origins are paths relative to the folder with forward slashes; of a single file, its name.
    """

    root: Path
    """The folder, resolved; of a single file, its folder."""
    files: tuple[tuple[str, Path], ...]
    """(origin, path) of each file to be read."""
    rejected: tuple[Rejected, ...]
    """Files of the wanted kind that are not read, with the reason."""
    others: tuple[tuple[str, int], ...]
    """(origin, bytes) of each file of another kind."""


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


def find_files(path: Path, *, suffixes: Sequence[str], exclude: Sequence[str] = ()) -> Found:
    """Every file at or below `path` whose name ends in one of `suffixes`.

    Args:
        path: a folder, walked to its bottom, or one file, taken whatever its name is.
        suffixes: in lower case, such as ".txt"; the case of names does not matter.
        exclude: patterns relative to the folder; see `Patterns`.

    Raises:
        DataError: there is nothing at `path`, or the folder cannot be listed.
    """
    if not _exists(path):
        raise DataError(
            str(path), "there is no such file or folder.", "Check data.sources.path, or create it and put text into it."
        )
    if path.is_file():
        return Found(path.resolve().parent, ((_printable(path.name), path.resolve()),), (), ())
    if not path.is_dir():
        raise DataError(str(path), "it is neither a folder nor a regular file.", "Name a folder or a file of text.")
    walk = _Walk(path.resolve(), tuple(suffixes), Patterns.of(exclude))
    walk.run()
    return Found(
        walk.root,
        tuple(sorted(walk.files, key=lambda file: file[0].encode())),
        tuple(sorted(walk.rejected, key=lambda rejected: rejected.origin.encode())),
        tuple(sorted(walk.others, key=lambda other: other[0].encode())),
    )


def nothing_to_read(path: Path, found: Found, suffixes: Sequence[str]) -> DataError:
    """The error that a folder without a single file of the wanted kind deserves."""
    wanted = ", ".join(suffixes)
    if found.rejected:
        first = found.rejected[0]
        what = f"none of its {len(found.rejected)} text files can be read; the first is {first.origin}: {first.reason}."
        return DataError(str(path), what, "Mend them, or correct data.exclude, or take the folder away.")
    if not found.others:
        return DataError(str(path), "the folder is empty.", f"Put text into it ({wanted}), or take the folder away.")
    kinds = Counter(Path(origin).suffix.lower() or "no ending" for origin, _ in found.others)
    seen = ", ".join(
        f"{count} {suffix}" for suffix, count in sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:8]
    )
    return DataError(str(path), f"nothing in it is text; it holds {seen}.", f"Convert these files to one of {wanted}.")


def nothing_came_out(path: Path, rejected: int, first: Rejected | None) -> DataError:
    """The error that a source deserves of whose files not one gave a document."""
    why = f" The first of {rejected}: {first.origin}: {first.reason}." if first else ""
    return DataError(str(path), f"no text could be read from it.{why}", "Put text into it, or take it out of the data.")


def unread(found: Found, reader: str) -> list[Rejected]:
    """The files of another kind, as rejected by `reader`, which is a kind of source."""
    return [
        Rejected(origin, f"files that end in {Path(origin).suffix.lower() or 'nothing'} are not read by {reader}", size)
        for origin, size in found.others
        if not origin.lower().endswith((*TEXT_SUFFIXES, *JSONL_SUFFIXES))
    ]


def contents_digest(found: Found, *salt: str) -> str:
    """Hex digest over the names and contents of the files to be read, and over whatever alters what is made of them."""
    digest = hashlib.blake2b(digest_size=16)
    for text in salt:
        digest.update(text.encode() + b"\0")
    for origin, path in found.files:
        contents = hashlib.blake2b(digest_size=16)
        try:
            with path.open("rb") as file:
                while block := file.read(READ_BYTES):
                    contents.update(block)
        except OSError:
            contents.update(b"unreadable")
        digest.update(origin.encode() + b"\0" + contents.digest())
    return digest.hexdigest()


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

    def __init__(self, root: Path, suffixes: tuple[str, ...], exclude: Patterns) -> None:
        self.root = root
        self.suffixes = suffixes
        self.exclude = exclude
        self.files: list[tuple[str, Path]] = []
        self.rejected: list[Rejected] = []
        self.others: list[tuple[str, int]] = []
        self._links: list[tuple[str, Path]] = []
        self._seen: set[Path] = set()

    def run(self) -> None:
        """Walk; what was found lies in files, rejected and others."""
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
                    self.rejected += self._hidden(origin, entry)
                elif entry.is_symlink():
                    self._links.append((origin, Path(entry.path)))
                elif entry.is_dir():
                    waiting.append((origin + "/", Path(entry.path)))
                else:
                    self._file(origin, Path(entry.path))

    def _hidden(self, origin: str, entry: os.DirEntry[str]) -> list[Rejected]:
        is_folder = entry.is_dir(follow_symlinks=False)
        if not is_folder and not origin.lower().endswith(self.suffixes):
            return []
        return [Rejected(origin, f"hidden {'folder' if is_folder else 'file'}: its name begins with a dot")]

    def _file(self, origin: str, path: Path) -> None:
        self._seen.add(path)
        try:
            status = path.stat()
        except OSError as error:
            self.rejected.append(Rejected(origin, f"it cannot be read ({error.strerror})"))
            return
        if not origin.lower().endswith(self.suffixes):
            self.others.append((origin, status.st_size))
        elif pattern := self.exclude.first_match(origin):
            self.rejected.append(Rejected(origin, f"left out by exclude '{pattern}'", status.st_size))
        elif not stat.S_ISREG(status.st_mode):
            self.rejected.append(Rejected(origin, "it is no regular file"))
        else:
            self.files.append((origin, path))

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
