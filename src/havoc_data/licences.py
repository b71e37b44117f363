"""Under which licence a text stands: from a sidecar file, or from the licence file that lies nearest.

`metadata.jsonl` names it file by file: {"path": "book/chapter1.tex", "licence": "CC-BY-4.0"}, paths relative to its own
folder; a path may be a folder. Where it says nothing, the nearest LICENSE or COPYING up the folders counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from havoc_data.document import Rejected
from havoc_data.encoding import decode_whole
from havoc_data.inputs import Input, InputError
from havoc_data.reader import format_of

METADATA = "metadata.jsonl"
"""What a sidecar is called."""
UNKNOWN = "LicenseRef-unknown"
"""SPDX's form for a licence that has a text and no known name."""

_LICENCE_FILE = re.compile(r"(?:licen[cs]e|copying|copyright)(?:[.-][a-z0-9.+-]{1,30})?", re.IGNORECASE)
_LARGEST_BYTES = 2**20
_HEAD = 1000
_IDENTIFIER = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+() -]+?)[ \t]*(?:\*/|-->|$)", re.MULTILINE)
_VERSION = r"[ ,v(-]*(?:version )?"
_COMMONS = (
    ("-NC-SA", "[- ]non-?commercial[- ]share-?alike"),
    ("-NC-ND", "[- ]non-?commercial[- ]no-?deriv[a-z]*"),
    ("-NC", "[- ]non-?commercial"),
    ("-SA", "[- ]share-?alike"),
    ("-ND", "[- ]no-?deriv[a-z]*"),
    ("", ""),
)
_PHRASES: tuple[tuple[str, str], ...] = (
    *((rf"creative commons attribution{words}{_VERSION}([34])\.0", f"CC-BY{name}-{{}}.0") for name, words in _COMMONS),
    *(
        (rf"\bcc[- ]by{name.lower().replace('-', '[- ]')}{_VERSION}([34])\.0", f"CC-BY{name}-{{}}.0")
        for name, _ in _COMMONS
    ),
    *((rf"commons\.org/licenses/by{name.lower()}/([34])\.0", f"CC-BY{name}-{{}}.0") for name, _ in _COMMONS),
    (r"cc0 1\.0 universal|creativecommons\.org/publicdomain/zero/1\.0", "CC0-1.0"),
    (rf"gnu free documentation license{_VERSION}1\.([23])", "GFDL-1.{}"),
    (rf"gnu lesser general public license{_VERSION}2\.1", "LGPL-2.1"),
    (rf"gnu lesser general public license{_VERSION}3", "LGPL-3.0"),
    (rf"gnu general public license{_VERSION}([23])\b", "GPL-{}.0"),
    (r"apache license,? version 2\.0", "Apache-2.0"),
    (r"mozilla public license,? (?:version |v\. ?)2\.0", "MPL-2.0"),
    (r"this is free and unencumbered software released into the public domain", "Unlicense"),
    (r"python software foundation license version 2", "PSF-2.0"),
    (r"permission is hereby granted, free of charge, to any person obtaining a copy", "MIT"),
    (r"redistribution and use in source and binary forms.*neither the name", "BSD-3-Clause"),
    (r"redistribution and use in source and binary forms", "BSD-2-Clause"),
)
"""Telling words in the text of a licence, white space as one space, in lower case -> SPDX name. The one that begins first in
the text wins: a licence may speak of others farther down."""


def is_licence_file(name: str) -> bool:
    """Whether a file of this name holds a licence. A chapter called copyright.tex is text."""
    return bool(_LICENCE_FILE.fullmatch(name)) and format_of(name) in (None, "text", "html")


def spdx_of(text: str) -> str:
    """The SPDX name of the licence that `text` is, or speaks of first; UNKNOWN if it is none that is known here."""
    identifier = _IDENTIFIER.search(text, 0, _HEAD)  # farther down it is that of something else inside
    if identifier:
        return identifier[1]
    flat = re.sub(r"\s+", " ", text).lower()
    best: tuple[int, int, str] | None = None
    for number, (pattern, name) in enumerate(_PHRASES):
        found = re.search(pattern, flat)
        if found:
            version = found[1] if found.re.groups else ""
            entry = (found.start(), number, name.format(version))
            best = entry if best is None else min(best, entry)
    return best[2] if best else UNKNOWN


@dataclass(frozen=True)
class Licences:
    """What a source knows of the licences of its files."""

    named: Mapping[str, str]
    """File or folder, as an origin -> licence, from sidecars."""
    lying: Mapping[str, str]
    """Folder, as an origin, "" for the top -> licence, from licence files."""

    def of(self, origin: str) -> str | None:
        """The licence of the file `origin`; None where nothing names one."""
        above = [origin, *_folders(origin)]
        for known in (self.named, self.lying):
            found = next((known[place] for place in above if place in known), None)
            if found:
                return found
        return None


def read_licences(licences: Sequence[Input], sidecars: Sequence[Input]) -> tuple[Licences, tuple[Rejected, ...]]:
    """What licence files and sidecars say.

    Args:
        licences: files that `is_licence_file` names, in the order of their origins; of several in a folder the first
            that is recognised counts.
        sidecars: files called METADATA.

    Returns:
        (licences, rows and files that could not be used); the files themselves are not among the rejected.
    """
    named: dict[str, str] = {}
    lying: dict[str, str] = {}
    rejected: list[Rejected] = []
    for item in licences:
        folder = _folders(item.origin)[0]
        try:
            name = spdx_of(decode_whole(item.read_all(_LARGEST_BYTES))[0])
        except InputError as error:
            rejected.append(Rejected(item.origin, f"no licence is taken from it: {error.reason}", rule="licence_file"))
            name = UNKNOWN
        if lying.get(folder, UNKNOWN) == UNKNOWN:
            lying[folder] = name
    for item in sidecars:
        folder = _folders(item.origin)[0]
        try:
            with item.open() as file:
                for number, line in enumerate(file, 1):
                    row = _row(line)
                    if isinstance(row, str):
                        where = f"line {number} of the sidecar: {row}"
                        rejected.append(Rejected(item.origin, where, rule="metadata_file"))
                    elif row is not None:
                        named[_joined(folder, row[0])] = row[1]
        except InputError as error:
            rejected.append(Rejected(item.origin, error.reason, rule="metadata_file"))
    return Licences(named, lying), tuple(rejected)


def _folders(origin: str) -> list[str]:
    """The folders a file lies in, nearest first, "" last."""
    parts = origin.split("/")[:-1]
    return ["/".join(parts[:length]) for length in range(len(parts), -1, -1)]


def _joined(folder: str, path: str) -> str:
    path = path.removeprefix("./").rstrip("/")
    return "/".join(each for each in (folder, "" if path == "." else path) if each)


def _row(line: bytes) -> tuple[str, str] | str | None:
    """(path, licence) of a row, or why there is none; None for a blank line, and for a row that names no licence."""
    if not line.strip():
        return None
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        return "no valid JSON"
    path = row.get("path") if isinstance(row, dict) else None
    if not isinstance(path, str) or not path:
        return "no object with a 'path'"
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        return f"the path {path[:80]!r} leads out of the folder"
    licence = row.get("licence", row.get("license"))
    if licence is None:
        return None
    return (
        (path, licence) if isinstance(licence, str) and licence.strip() else f"the licence of {path[:80]!r} is no text"
    )
