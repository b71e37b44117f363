r"""Which LaTeX file reads which: the file that a command names, and the files that belong together.

A name is looked for as TeX does, from the folder of the root, then from the folder of the file that holds the command
and from those above it (the real root may read its chapters by a macro, which is not followed here); only among the files
that are given, so that no name leads out of the folder or the archive.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from havoc_data.inputs import Input
from havoc_data.readers._tex_source import Include

_PACKED = (".gz", ".zst", ".bz2", ".xz")


@dataclass(frozen=True)
class Folder:
    """Where a file lies."""

    archive: str
    """"book.zip!/", or "" for a file on disk."""
    path: str
    """Inside the archive or the source's folder; "" for the topmost."""

    def above(self) -> Iterator[Folder]:
        """This folder, the one that holds it, and so on to the topmost."""
        path = self.path
        while path:
            yield Folder(self.archive, path)
            path = posixpath.dirname(path)
        yield Folder(self.archive, "")

    def holds(self, name: str) -> str | None:
        """Origin of the file `name` seen from here; None if that lies outside."""
        inner = posixpath.normpath(posixpath.join(self.path, name))
        if inner.startswith(("/", "../")) or inner in ("..", ".") or "!/" in inner:
            return None
        return self.archive + inner


def folder_of(item: Input) -> Folder:
    """Where a file lies."""
    cut = item.origin.rfind("!/") + 2 if "!/" in item.origin else 0
    return Folder(item.origin[:cut], posixpath.dirname(item.origin[cut:]))


class Index:
    """Files by their names, before .gz and the like.

    Args:
        items: of two with the same name, the first counts.
    """

    def __init__(self, items: Sequence[Input]) -> None:
        self._numbers: dict[str, int] = {}
        for number, item in enumerate(items):
            name = item.origin
            for end in _PACKED:
                name = name.removesuffix(end)
            self._numbers.setdefault(name, number)

    def find(self, include: Include, root: Folder, own: Folder) -> int | None:
        """Number of the file that a command in a file in `own` reads, where the root lies in `root`; None if unknown."""
        for folder in (*((own, root) if include.beside else (root, own)), *own.above()):
            number = self.find_from(include, folder)
            if number is not None:
                return number
        return None

    def find_from(self, include: Include, folder: Folder) -> int | None:
        """Number of the file that a command names, seen from `folder`."""
        name = posixpath.join(include.folder, include.name)
        for end in (".tex", "", ".latex"):
            origin = folder.holds(name + end)
            if origin in self._numbers:
                return self._numbers[origin]
        return None


def group(items: Sequence[Input], includes: Sequence[Sequence[Include]]) -> list[tuple[int, ...]]:
    """Numbers of the files that belong together, each once: a root and what it reads, in the order of reading.

    Args:
        items: all files.
        includes: of each, its commands.
    """
    index = Index(items)
    folders = [folder_of(item) for item in items]
    # The root is not known yet: any folder above a file may be the root's.
    links = [
        sorted({
            target
            for include in includes[number]
            for folder in folders[number].above()
            if (target := index.find_from(include, folder)) is not None and target != number
        })
        for number in range(len(items))
    ]  # fmt: skip
    claimed: set[int] = set()
    candidates = (*_roots(links), *range(len(items)))  # the second half: what a guess above took for read
    return sorted(
        _reached(root, index, folders, includes, claimed) for root in candidates if root not in claimed
    )  # fmt: skip


def _reached(
    root: int, index: Index, folders: Sequence[Folder], includes: Sequence[Sequence[Include]], claimed: set[int]
) -> tuple[int, ...]:
    """A root and what it reads, as far as not claimed before; claims them. No recursion: a chain may be long."""
    claimed.add(root)
    reached, waiting = [root], [(root, iter(includes[root]))]
    while waiting:
        number, rest = waiting[-1]
        include = next(rest, None)
        if include is None:
            waiting.pop()
            continue
        target = index.find(include, folders[root], folders[number])
        if target is not None and target not in claimed:
            claimed.add(target)
            reached.append(target)
            waiting.append((target, iter(includes[target])))
    return tuple(reached)


def _roots(links: Sequence[Sequence[int]]) -> list[int]:
    """Files that no other reads; of files that read one another and that no other reads, the first.

    Kosaraju's order: of what is not reached yet, the file whose depth-first search ended last lies in a circle that
    nothing outside reads, or stands alone.
    """
    back: list[list[int]] = [[] for _ in links]
    for number, targets in enumerate(links):
        for target in targets:
            back[target].append(number)
    ended: list[int] = []
    seen: set[int] = set()
    for number in range(len(links)):
        ended += _search(links, number, seen)
    roots: list[int] = []
    reached: set[int] = set()
    for number in reversed(ended):
        if number not in reached:
            roots.append(min(_search(back, number, set())))
            _search(links, number, reached)
    return sorted(roots)


def _search(links: Sequence[Sequence[int]], start: int, seen: set[int]) -> list[int]:
    """What can be reached from `start` and was not seen before, in the order in which the depth-first search leaves it."""
    if start in seen:
        return []
    seen.add(start)
    left, waiting = [], [(start, iter(links[start]))]
    while waiting:
        number, rest = waiting[-1]
        target = next((each for each in rest if each not in seen), None)
        if target is None:
            left.append(number)
            waiting.pop()
        else:
            seen.add(target)
            waiting.append((target, iter(links[target])))
    return left
